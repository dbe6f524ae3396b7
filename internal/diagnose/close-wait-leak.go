package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// CloseWaitLeak: a program does not close what its peer has closed.
const CloseWaitLeak Slug = "close-wait-leak"

// LeakedSockets are the old ones in CLOSE_WAIT of one owner and service.
const LeakedSockets EvidenceID = "leaked-sockets"

var closeWaitLeakRule = Rule{
	Slug:       CloseWaitLeak,
	Title:      "a program does not close sockets that its peer has closed",
	Needs:      "sockets, a second look at those in CLOSE_WAIT, their owners",
	Thresholds: []Threshold{closeWaitSockets, descriptorsCritical},
	CausedBy:   []Slug{AcceptQueueOverflow},
	Remedies:   []RemedyID{CloseSockets, RestartProcess},
	judge:      judgeCloseWaitLeak,
}

var (
	closeWaitSockets = Threshold{
		Name: "close-wait-leak.sockets", Default: 100, Unit: "sockets",
		Reason: "of one owner and service, each 3 s old at least: " +
			"a busy program has some in CLOSE_WAIT for milliseconds, not a hundred for seconds",
	}
	descriptorsCritical = Threshold{
		Name: "close-wait-leak.critical-percent", Default: 90, Unit: percentUnit,
		Reason: "of the owner's RLIMIT_NOFILE: when it is met, accept(), socket() and open() fail with EMFILE",
	}
)

func judgeCloseWaitLeak(sc *scene) (v verdict) {
	// What leaks belongs to an owner and may be of several groups: no survey of these.
	most, at := -1, ""
	for _, p := range sc.readable(&v) {
		if v.absent == "" {
			v.absent = "no socket is in CLOSE_WAIT for 3 s"
		}
		for j := range p.Groups {
			if g := &p.Groups[j]; g.CloseWait == nil && float64(g.States[tcp.CloseWait]) >= sc.threshold(closeWaitSockets) {
				v.unknown = append(v.unknown, p.lacks(LackSecondLook, fmt.Sprintf(
					"a second look at %s CLOSE_WAIT sockets of %s", figure.Count(g.States[tcp.CloseWait]), who(g))))
			}
		}
		if p.Other != nil && float64(p.mostInOther(p.Other.States[tcp.CloseWait])) >= sc.threshold(closeWaitSockets) {
			v.unknown = append(v.unknown, p.needsRoom())
		}
		for _, l := range p.leaks() {
			if float64(l.old) >= sc.threshold(closeWaitSockets) {
				v.findings = append(v.findings, sc.leak(p, l))
			} else if l.old > most {
				most, at = l.old, fmt.Sprintf("the most of one owner and service are %s sockets in CLOSE_WAIT for 3 s (%s, in %s)",
					figure.Count(l.old), l.at(), p.netns.Label)
			}
		}
	}
	if at != "" {
		v.absent = at
	}
	return v
}

// leakKey is what the sockets of one leak share: one service and one owner. Workers
// of one program are one owner.
type leakKey struct {
	role                    tcp.Role
	service                 tcp.Endpoint
	process, container, pod string
}

// leak is old CLOSE_WAIT sockets of one owner and service.
type leak struct {
	leakKey
	old        int
	unaccepted int
	owners     []snapshot.Owner  // none where the owner could not be told
	groups     []*snapshot.Group // in falling order of their sockets
}

func (l *leak) at() string {
	if l.role == tcp.Acceptor {
		return "on " + l.service.String()
	}
	return "to " + l.service.String()
}

// key is what the leak is known by, whichever of its groups is the largest.
func (l *leak) key() (Subject, string) {
	subject := Subject{Role: l.role, Remote: l.service}
	if l.role == tcp.Acceptor {
		subject.Local, subject.Remote = l.service, tcp.Endpoint{}
	}
	return subject, strings.Join([]string{l.process, l.container, l.pod}, " ")
}

// leaks adds up what each owner and service has, in falling order.
func (p *place) leaks() []*leak {
	byKey := map[leakKey]*leak{}
	var all []*leak
	add := func(g *snapshot.Group, n int, owner *snapshot.Owner) {
		key := leakKey{role: g.Role, service: g.Remote}
		if g.Role == tcp.Acceptor {
			key.service = g.Local
		}
		if owner != nil {
			key.process, key.container, key.pod = owner.Process, owner.Container, owner.Pod
		}
		l := byKey[key]
		if l == nil {
			l = &leak{leakKey: key}
			byKey[key] = l
			all = append(all, l)
		}
		l.old += n
		l.groups = append(l.groups, g)
		l.unaccepted += g.CloseWait.Unaccepted
		if owner != nil && !slices.ContainsFunc(l.owners, func(o snapshot.Owner) bool { return o.PID == owner.PID }) {
			l.owners = append(l.owners, *owner)
		}
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.CloseWait == nil || g.CloseWait.Old == 0 {
			continue
		}
		nobody := g.CloseWait.Old
		for j := range g.CloseWait.Owners {
			o := &g.CloseWait.Owners[j]
			add(g, o.Sockets, o)
			nobody -= o.Sockets
		}
		if nobody > 0 {
			add(g, nobody, nil)
		}
	}
	slices.SortStableFunc(all, func(a, b *leak) int { return cmp.Compare(b.old, a.old) })
	return all
}

func (sc *scene) leak(p *place, l *leak) draft {
	g := l.groups[0]
	f := p.about(g)
	f.Key.Subject, f.Key.Part = l.key()
	f.sockets = l.old
	f.Severity = Warning
	f.Owners = l.owners
	name := "a process that could not be named"
	if len(l.owners) > 0 {
		name = l.process
		if len(l.owners) > 1 {
			name = fmt.Sprintf("%s (%d processes)", l.process, len(l.owners))
		}
	} else {
		f.lower(Medium)
		f.doubt("which process has them: it needs root to look into the descriptors of others")
	}
	f.Summary = fmt.Sprintf("%s leaves %s connections %s in CLOSE_WAIT: the peer has closed them, the program has not",
		name, figure.Count(l.old), l.at())
	f.Why = "The peer has ended the connection (read() returns 0), and the kernel keeps the socket " +
		"until the program closes it: no time-out does"
	f.Evidence = []Evidence{{
		ID: LeakedSockets, Name: "in CLOSE_WAIT, 3 s old", Value: float64(l.old), Limit: new(float64(l.total())), Unit: "sockets",
		Source: "sock_diag: second look at CLOSE_WAIT, tcpi_last_ack_recv of 3 s or more, of all sockets of the group",
		Check:  p.in("ss -Htanp state close-wait" + filter(g)),
	}}
	if o := l.tightest(); o != nil {
		used, most := float64(*o.Descriptors), float64(*o.DescriptorLimit)
		f.Evidence = append(f.Evidence, Evidence{
			ID: "descriptors", Name: "descriptors of pid " + fmt.Sprint(o.PID), Value: used, Limit: new(most), Unit: "descriptors",
			Source: fmt.Sprintf("/proc/%d/fd, RLIMIT_NOFILE", o.PID),
			Check:  fmt.Sprintf("ls /proc/%d/fd | wc -l; grep 'open files' /proc/%d/limits", o.PID, o.PID),
		})
		left := max(most-used, 0)
		f.Why += fmt.Sprintf("; %s descriptors are left until accept(), socket() and open() fail with EMFILE", figure.Count(left))
		if share(used, most) >= sc.threshold(descriptorsCritical) {
			f.Severity = Critical
			f.FailingNow = left == 0
			f.Summary += fmt.Sprintf("; %s of %s descriptors are left", figure.Count(left), figure.Count(most))
		}
	} else if len(l.owners) > 0 {
		f.doubt("how many descriptors are left until EMFILE: it needs root to read them")
	}
	f.Why += ". Each socket holds a descriptor and its buffers"
	if l.role == tcp.Connector {
		f.Why += ", and a source port"
	}
	f.Why += "."
	if l.unaccepted > 0 {
		f.RuledOut = append(f.RuledOut, RuledOut{"never-accepted", "never accepted", figure.Count(l.unaccepted) +
			" more CLOSE_WAIT sockets wait in the listener's queue: no program has them, and they are not counted"})
	}
	f.RuledOut = append(f.RuledOut, RuledOut{"time-wait", "TIME_WAIT",
		figure.Count(g.States[tcp.TimeWait]) + " sockets, of connections that this side did close: they are none of the leak"})
	f.doubt("how fast it grows: look again in a minute")
	f.Remedies = []RemedyID{CloseSockets, RestartProcess}
	f.WillNotHelp = []Folklore{
		Folklore(setting.TuningForCloseWait),
		{"TCP keep-alive", "the peer's kernel answers the probes, or its reset ends the socket for the kernel and not the descriptor"},
		{"a higher RLIMIT_NOFILE", "it puts the end off; the leak goes on"},
	}
	return f
}

func (l *leak) total() int {
	n := 0
	for _, g := range l.groups {
		n += g.States.Total()
	}
	return n
}

// tightest is the owner with the fewest descriptors left, nil where none is known.
func (l *leak) tightest() *snapshot.Owner {
	var tightest *snapshot.Owner
	for i := range l.owners {
		o := &l.owners[i]
		if o.Descriptors == nil || o.DescriptorLimit == nil {
			continue
		}
		if tightest == nil || *o.DescriptorLimit-*o.Descriptors < *tightest.DescriptorLimit-*tightest.Descriptors {
			tightest = o
		}
	}
	return tightest
}
