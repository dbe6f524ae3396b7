package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// AcceptQueueOverflow: a program does not accept its connections in time.
const AcceptQueueOverflow Slug = "accept-queue-overflow"

const (
	listenOverflows = "TcpExtListenOverflows"
	listenDrops     = "TcpExtListenDrops"
	keySomaxconn    = setting.Somaxconn
)

var acceptQueueOverflowRule = Rule{
	Slug:       AcceptQueueOverflow,
	Title:      "a listener's queue is full: connections wait for a program that does not accept them",
	Needs:      "listeners, ListenOverflows and ListenDrops read twice",
	Thresholds: []Threshold{acceptQueue},
	Remedies:   []RemedyID{AcceptSooner, RaiseSomaxconn, RaiseBacklog},
	judge:      judgeAcceptQueueOverflow,
}

var acceptQueue = Threshold{
	Name: "accept-queue-overflow.queue-percent", Default: 100, Unit: percentUnit,
	Reason: "of the backlog and one more, which is what the kernel queues: from there it refuses; " +
		"a queue that is only deep is emptied by the next accept()",
}

// The remedies of this problem alone.
const (
	// AcceptSooner: the program calls accept() more often.
	AcceptSooner RemedyID = "accept-sooner"
	// RaiseBacklog: the program asks listen() for a longer queue.
	RaiseBacklog RemedyID = "raise-backlog"
	// RaiseSomaxconn: a higher net.core.somaxconn.
	RaiseSomaxconn RemedyID = "raise-somaxconn"
)

func judgeAcceptQueueOverflow(sc *scene) (v verdict) {
	at, most := "", -1.0
	if len(sc.places) > 0 {
		at = "nobody listens"
	}
	for _, p := range sc.places {
		overflows, told := p.Counters.Rose(listenOverflows)
		drops, _ := p.Counters.Rose(listenDrops)
		var full []*snapshot.Listener
		var fullest *snapshot.Listener
		for j := range p.Listeners {
			l := &p.Listeners[j]
			if share(float64(l.AcceptQueue), float64(l.Backlog)+1) >= sc.threshold(acceptQueue) {
				full = append(full, l)
			}
			if fullest == nil || queueFill(l) > queueFill(fullest) {
				fullest = l
			}
		}
		for _, l := range full {
			v.findings = append(v.findings, sc.fullQueue(p, l, len(full)))
		}
		if len(full) == 0 && overflows+drops > 0 {
			v.findings = append(v.findings, sc.droppedSomewhere(p, fullest))
		}
		if total := p.Counters.Total[listenOverflows]; !told && total > 0 && len(p.Listeners) > 0 && len(full) == 0 {
			v.unknown = append(v.unknown, p.lacks(LackWindow, fmt.Sprintf(
				"a window (--window above 0): ListenOverflows is %s since boot, and only two readings tell whether it rises", figure.Count(total))))
		}
		if fullest != nil && queueFill(fullest) > most {
			most = queueFill(fullest)
			at = fmt.Sprintf("the fullest accept queue, of %s in %s, holds %s of %s connections",
				fullest.Local, p.netns.Label, figure.Count(float64(fullest.AcceptQueue)), figure.Count(float64(fullest.Backlog)))
			if told {
				at += "; ListenOverflows did not rise"
			}
		}
	}
	v.absent = at
	return v
}

// queueFill is how full a listener's queue is, in percent. The kernel takes one
// connection more than the backlog (sk_acceptq_is_full of include/net/sock.h).
func queueFill(l *snapshot.Listener) float64 {
	return share(float64(l.AcceptQueue), float64(l.Backlog)+1)
}

// aboutListener begins a finding on a listener, and joins it with those on the
// connections that it accepts.
func (p *place) aboutListener(l *snapshot.Listener) draft {
	f := draft{sockets: int(l.AcceptQueue)}
	f.Netns, f.Confidence = p.netns, High
	f.Subject = Subject{Role: tcp.Acceptor, Local: l.Local}
	f.Key.Subject, f.Key.Part = f.Subject, p.nth(l)
	f.Owners = l.Owners
	f.ties = []tie{p.serves(l.Local)}
	for i := range p.Groups {
		if g := &p.Groups[i]; g.Role == tcp.Acceptor && g.Local.Port == l.Local.Port {
			f.ties = append(f.ties, p.serves(g.Local))
		}
	}
	if len(f.Owners) == 0 {
		f.lower(Medium)
		f.doubt("which process listens there: it needs root to look into the descriptors of others")
	}
	return f
}

// nth tells apart the listeners that share an address (SO_REUSEPORT); nothing for the
// first.
func (p *place) nth(l *snapshot.Listener) string {
	n := 0
	for i := range p.Listeners {
		other := &p.Listeners[i]
		if other == l {
			break
		}
		if other.Local == l.Local {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("listener %d", n+1)
}

// waiting counts the connections of a port that no program has taken yet, and those
// among them whose client has given up.
func (p *place) waiting(port uint16) (all, given int) {
	for i := range p.Groups {
		if g := &p.Groups[i]; g.Role == tcp.Acceptor && g.Local.Port == port {
			all += g.NoFile[tcp.Established] + g.NoFile[tcp.CloseWait]
			given += g.NoFile[tcp.CloseWait]
		}
	}
	return all, given
}

func (sc *scene) fullQueue(p *place, l *snapshot.Listener, others int) draft {
	f := p.aboutListener(l)
	name := "the program"
	if len(f.Owners) > 0 {
		name = f.Owners[0].Process
	}
	f.Severity = Warning
	f.Summary = fmt.Sprintf("%s accepts too slowly on %s: its queue is full, with %s connections of a backlog of %s",
		name, l.Local, figure.Count(float64(l.AcceptQueue)), figure.Count(float64(l.Backlog)))
	overflows, told := p.Counters.Rose(listenOverflows)
	switch {
	case overflows > 0:
		f.Severity, f.FailingNow = Critical, true
		f.Summary += fmt.Sprintf("; %s refused in %.3g s", figure.Items(int(overflows), "attempt"), float64(sc.WindowMS)/1000)
		if others > 1 {
			f.doubt("which of the " + figure.Count(others) + " full queues refused them: the kernel counts per namespace")
		}
	case !told:
		f.doubt("whether connections are refused: ListenOverflows needs two readings (--window above 0)")
	}
	f.Why = "The kernel finishes the handshake and queues the connection until the program calls accept(). " +
		"When more than the backlog wait, it drops " +
		"further SYNs: the client tries again after 1 s, and gives up in the end."
	if all, given := p.waiting(l.Local.Port); given > 0 {
		f.Why += fmt.Sprintf(" %s of %s that wait are in CLOSE_WAIT: their clients have left already.", figure.Count(given), figure.Count(all))
	}
	f.Evidence = append([]Evidence{{
		ID: "accept-queue", Name: "accept queue", Value: float64(l.AcceptQueue), Limit: new(float64(l.Backlog)), Unit: "connections",
		Source: "sock_diag: Recv-Q and Send-Q of the listener", Check: p.in(fmt.Sprintf("ss -Hltn sport = :%d", l.Local.Port)),
	}}, sc.listenEvidence(p)...)
	f.Remedies = []RemedyID{AcceptSooner, RaiseBacklog}
	if most, ok := p.somaxconn(); ok {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "somaxconn", Name: "somaxconn", Value: most, Unit: "connections",
			Source: keySomaxconn + ", the most that listen() grants", Check: p.sysctl(keySomaxconn),
		})
		if float64(l.Backlog) >= most {
			f.Remedies = []RemedyID{AcceptSooner, RaiseSomaxconn, RaiseBacklog}
			f.Why += " The backlog is as large as " + keySomaxconn + " allows; a changed somaxconn counts from the program's next listen()."
		} else {
			f.RuledOut = append(f.RuledOut, RuledOut{"somaxconn", "somaxconn", fmt.Sprintf(
				"it would allow %s; the program asked listen() for %s", figure.Count(most), figure.Count(float64(l.Backlog)))})
		}
	}
	f.WillNotHelp = listenFolklore
	return f
}

// droppedSomewhere is a finding on a namespace whose queues were full only between
// two looks.
func (sc *scene) droppedSomewhere(p *place, fullest *snapshot.Listener) draft {
	f := draft{}
	if len(p.Listeners) == 1 {
		f = p.aboutListener(fullest)
	} else {
		f.Netns, f.Confidence = p.netns, Medium
	}
	overflows, _ := p.Counters.Rose(listenOverflows)
	drops, _ := p.Counters.Rose(listenDrops)
	f.Severity, f.FailingNow = Critical, true
	seconds := float64(sc.WindowMS) / 1000
	if overflows > 0 {
		f.Summary = fmt.Sprintf("%s met a full accept queue in %.3g s; no queue was full at the moment of the look",
			figure.Items(int(overflows), "attempt"), seconds)
		f.Why = "Connections come in bursts that a queue does not hold: the kernel drops the SYN, and the client tries again after 1 s."
		f.Remedies = []RemedyID{RaiseBacklog, AcceptSooner, RaiseSomaxconn}
	} else {
		f.Summary = fmt.Sprintf("%s to connect dropped in %.3g s, none of them by a full accept queue",
			figure.Items(int(drops), "attempt"), seconds)
		f.Why = "ListenDrops counts every SYN or final ACK that a listener dropped: " +
			"for a full queue, for want of memory, or by a filter (net/ipv4/tcp_ipv4.c)."
		f.Remedies = []RemedyID{AcceptSooner, RaiseBacklog}
	}
	if fullest != nil && len(p.Listeners) > 1 {
		f.doubt(fmt.Sprintf("which of %s listeners: the kernel counts per namespace; the fullest now is %s with %s of %s",
			figure.Count(len(p.Listeners)), fullest.Local, figure.Count(float64(fullest.AcceptQueue)), figure.Count(float64(fullest.Backlog))))
	}
	f.Evidence = sc.listenEvidence(p)
	f.WillNotHelp = listenFolklore
	return f
}

func (sc *scene) listenEvidence(p *place) (list []Evidence) {
	for _, name := range []string{listenOverflows, listenDrops} {
		if rise, told := p.Counters.Rose(name); told {
			list = append(list, Evidence{
				ID: EvidenceID(name), Name: name[len("TcpExt"):] + " rise", Value: float64(rise), Unit: "attempts",
				Source: fmt.Sprintf("/proc/net/netstat, over %.3g s; %s since boot",
					float64(sc.WindowMS)/1000, figure.Count(p.Counters.Total[name])),
				Check: p.in("nstat -az " + name),
			})
		}
	}
	return list
}

// somaxconn is the most that listen() grants in the namespace.
func (p *place) somaxconn() (float64, bool) {
	n, ok := p.Settings.Int(keySomaxconn)
	return float64(n), ok
}

var listenFolklore = []Folklore{
	Folklore(setting.TuningForListener),
	Folklore(setting.HandshakesForListener),
	Folklore(setting.AbortForListener),
	Folklore(setting.SomaxconnAlone),
}
