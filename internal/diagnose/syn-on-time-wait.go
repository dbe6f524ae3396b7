package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// SynOnTimeWait: new connections stall because their SYN meets an old TIME_WAIT.
const SynOnTimeWait Slug = "syn-on-time-wait"

const (
	pawsTimeWait    = "TcpExtPAWSTimewait"
	pawsEstab       = "TcpExtPAWSEstab"
	skippedTimeWait = "TcpExtTCPACKSkippedTimeWait"
	keyRFC1337      = setting.RFC1337
	keyConnReuse    = setting.IPVSConnReuseMode
)

var synOnTimeWaitRule = Rule{
	Slug:       SynOnTimeWait,
	Title:      "new connections stall: their SYN meets an old TIME_WAIT of the same four numbers",
	Needs:      "PAWSTimewait (PAWSEstab on kernels before it), TCPACKSkippedTimeWait, read twice",
	Thresholds: []Threshold{refusedSYNs},
	Remedies:   []RemedyID{RFC1337Off, LongerConntrack, KeepConnections, NATMemory},
	judge:      judgeSynOnTimeWait,
}

var refusedSYNs = Threshold{
	Name: "syn-on-time-wait.refused-per-second", Default: 1, Unit: "segments/s",
	Reason: "refused by TIME_WAIT sockets: each is a connect that stalls, and there should be none",
}

// The remedies of this problem alone.
const (
	// RFC1337Off: net.ipv4.tcp_rfc1337 back at 0.
	RFC1337Off RemedyID = "rfc1337-off"
	// NATMemory: a NAT that remembers a closed connection for a minute at least.
	NATMemory RemedyID = "nat-memory"
)

func judgeSynOnTimeWait(sc *scene) (v verdict) {
	told := false
	for _, p := range sc.places {
		refused, known := p.refusedSYNs()
		if !known || sc.WindowMS == 0 {
			if p.Counters.Total[pawsTimeWait]+p.Counters.Total[skippedTimeWait] > 0 {
				v.unknown = append(v.unknown, p.lacks(LackWindow,
					"a window (--window above 0): only two readings tell whether SYNs are refused now"))
			}
			continue
		}
		told = true
		if float64(refused)*1000/float64(sc.WindowMS) >= sc.threshold(refusedSYNs) && p.timeWaiting() > 0 {
			v.findings = append(v.findings, sc.synRefused(p, refused))
		}
	}
	if told {
		v.absent = "no SYN was refused by a TIME_WAIT socket in this window"
	}
	return v
}

// refusedSYNs is how many segments TIME_WAIT sockets refused in the window, by the
// counters that this kernel has. PAWSEstab counts those of TIME_WAIT as well where
// PAWSTimewait does not exist.
func (p *place) refusedSYNs() (n uint64, known bool) {
	for _, name := range []string{pawsTimeWait, skippedTimeWait} {
		rise, told := p.Counters.Rose(name)
		n, known = n+rise, known || told
	}
	if _, there := p.Counters.Total[pawsTimeWait]; !there {
		rise, told := p.Counters.Rose(pawsEstab)
		n, known = n+rise, known || told
	}
	return n, known
}

func (p *place) timeWaiting() int { return p.States.TimeWaitSockets() }

func (sc *scene) synRefused(p *place, refused uint64) draft {
	f := draft{}
	seconds := float64(sc.WindowMS) / 1000
	var busiest *snapshot.Group
	for i := range p.Groups {
		g := &p.Groups[i]
		if n := g.States[tcp.TimeWait]; g.Role == tcp.Acceptor && n > 0 && (busiest == nil || n > busiest.States[tcp.TimeWait]) {
			busiest = g
		}
	}
	if busiest != nil {
		f = p.about(busiest)
		f.ties, f.Key.Subject = nil, Subject{} // it may be another service: nothing ties the counters to one
	}
	f.Netns, f.Severity, f.Confidence, f.FailingNow = p.netns, Warning, Medium, true
	f.sockets = int(refused)
	f.Summary = fmt.Sprintf("%s segments/s are refused by TIME_WAIT sockets: "+
		"clients that share an address reuse a port too soon, and their connects stall", figure.Rate(float64(refused)/seconds))
	f.Why = "A SYN with the four numbers of a connection in TIME_WAIT opens a new one only if its time stamp or sequence number is newer. " +
		"Behind a NAT or balancer two hosts with clocks of their own share one address: " +
		"the older clock's SYN is answered by an ACK of the old connection, the client resets that, and tries again."
	add := func(name, what string) {
		if rise, told := p.Counters.Rose(name); told {
			f.Evidence = append(f.Evidence, Evidence{
				ID: EvidenceID(name), Name: name[len("TcpExt"):] + " rise", Value: float64(rise), Unit: "segments",
				Source: fmt.Sprintf("/proc/net/netstat, over %.3g s: %s", seconds, what), Check: p.in("nstat -az " + name),
			})
		}
	}
	add(pawsTimeWait, "refused by TIME_WAIT for an old time stamp")
	add(skippedTimeWait, "refused again within 500 ms, without an answer")
	if _, there := p.Counters.Total[pawsTimeWait]; !there {
		add(pawsEstab, "old time stamps, in TIME_WAIT and ESTABLISHED alike")
		f.doubt("this kernel counts old segments of established connections in the same counter")
	}
	if rfc, known := p.Settings.Int(keyRFC1337); known {
		if rfc != 0 {
			f.Why += " With tcp_rfc1337=1 the client's reset is ignored, so that the connect fails in place of stalling."
			f.Remedies = append(f.Remedies, RFC1337Off)
			f.Evidence = append(f.Evidence, Evidence{
				ID: "rfc1337", Name: "tcp_rfc1337", Value: float64(rfc), Limit: new(0.0), Source: keyRFC1337, Check: p.sysctl(keyRFC1337),
			})
		} else {
			f.RuledOut = append(f.RuledOut, RuledOut{"rfc1337", "tcp_rfc1337",
				"0: the client's reset ends the old TIME_WAIT, and its next SYN is accepted"})
		}
	}
	if c := p.Conntrack; c != nil {
		if s, ok := c.TimeoutSeconds["time_wait"]; ok && s < snapshot.HistorySeconds {
			f.Why += fmt.Sprintf(" Connection tracking here forgets TIME_WAIT after %s s, before the 60 s of the servers "+
				"behind it.", figure.Count(s))
			f.Remedies = append(f.Remedies, LongerConntrack)
		}
	}
	if mode, known := p.Settings.Int(keyConnReuse); known {
		f.doubt(fmt.Sprintf("IPVS is loaded with conn_reuse_mode=%d: it may send a reused port to another server, or delay it by a second", mode))
	}
	f.Remedies = append(f.Remedies, KeepConnections, NATMemory)
	f.doubt("which clients: only tracing or a capture shows the segments that were refused")
	f.WillNotHelp = []Folklore{noTimestamps, noRFC1337, noFinTimeout, noRecycle}
	return f
}
