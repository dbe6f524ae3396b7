package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// OrphanPileUp: the last segments of closed connections are not answered.
const OrphanPileUp Slug = "orphan-pileup"

const (
	keyMaxOrphans    = setting.MaxOrphans
	keyOrphanRetries = setting.OrphanRetries
	abortOnMemory    = "TcpExtTCPAbortOnMemory"
)

var orphanPileUpRule = Rule{
	Slug:       OrphanPileUp,
	Title:      "closed connections pile up: their peers are dead or stalled",
	Needs:      "sockets; for the limit /proc/net/sockstat and tcp_max_orphans",
	Thresholds: []Threshold{orphanSockets, orphansCritical},
	Remedies:   []RemedyID{ReachPeer, FewerOrphanRetries, RaiseMaxOrphans},
	judge:      judgeOrphanPileUp,
}

var (
	orphanSockets = Threshold{
		Name: "orphan-pileup.sockets", Default: 100, Unit: "sockets",
		Reason: "of one group in FIN_WAIT1, CLOSING and LAST_ACK: with a peer that answers they last one round trip",
	}
	orphansCritical = Threshold{
		Name: "orphan-pileup.critical-percent", Default: 45, Unit: percentUnit,
		Reason: "of tcp_max_orphans: the kernel may count an orphan double or fourfold (tcp_out_of_resources), " +
			"and begins to reset from half of the limit",
	}
)

// The remedies of this problem alone.
const (
	// FewerOrphanRetries: a lower net.ipv4.tcp_orphan_retries.
	FewerOrphanRetries RemedyID = "fewer-orphan-retries"
	// RaiseMaxOrphans: a higher net.ipv4.tcp_max_orphans.
	RaiseMaxOrphans RemedyID = "raise-max-orphans"
)

func judgeOrphanPileUp(sc *scene) (v verdict) {
	least := sc.threshold(orphanSockets)
	s := survey{
		none: "no socket is in FIN_WAIT1, CLOSING or LAST_ACK",
		judge: func(_ *place, g *snapshot.Group, _ *verdict) (standing, float64) {
			switch n := float64(closing(g.States)); {
			case n >= least:
				return problem, n
			case n > 0:
				return below, n
			default:
				return apart, 0
			}
		},
		report: sc.orphans,
		fullest: func(p *place, g *snapshot.Group) string {
			return fmt.Sprintf("the most that wait for the end of their connection are %s sockets (%s, in %s)",
				figure.Count(closing(g.States)), who(g), p.netns.Label)
		},
		other: func(p *place) bool { return float64(p.mostInOther(closing(p.Other.States))) >= least },
	}
	for _, p := range sc.readable(&v) {
		s.walk(p, &v)
	}
	if len(v.findings) == 0 {
		v.findings = sc.manySmall()
	}
	v.absent = s.absent()
	return v
}

// manySmall are findings where no group is large: on each namespace whose connections
// are reset for want of room, else on the one with the most, where the host is full.
func (sc *scene) manySmall() (found []draft) {
	var largest *place
	for _, p := range sc.places {
		if rise, _ := p.Counters.Rose(abortOnMemory); rise > 0 {
			found = append(found, sc.orphansTogether(p))
		}
		if largest == nil || closing(p.States) > closing(largest.States) {
			largest = p
		}
	}
	if len(found) == 0 && largest != nil && sc.fullOfOrphans() {
		f := sc.orphansTogether(largest)
		f.hostWide = true
		found = append(found, f)
	}
	return found
}

// closing counts sockets whose own FIN is not acknowledged.
func closing(s tcp.States) int { return s[tcp.FinWait1] + s[tcp.Closing] + s[tcp.LastAck] }

func (sc *scene) orphans(p *place, g *snapshot.Group, _ *verdict) draft {
	f := p.about(g)
	n := closing(g.States)
	f.sockets = n
	f.orphanOwners()
	f.Severity = Warning
	silent := closing(g.Unanswered)
	f.Summary = fmt.Sprintf("%s closed connections of %s wait for an answer: %s in FIN_WAIT1, %s in LAST_ACK, %s in CLOSING",
		figure.Count(n), who(g), figure.Count(g.States[tcp.FinWait1]), figure.Count(g.States[tcp.LastAck]), figure.Count(g.States[tcp.Closing]))
	f.Why = "The program here has closed, and the peer acknowledges neither the FIN nor what was sent before it. "
	switch {
	case 2*silent >= n:
		f.Why += fmt.Sprintf("%s have sent the same segment three times or more: the peer, or the way to it, is dead.",
			figure.Count(silent))
	default:
		f.Why += fmt.Sprintf("Only %s have sent the same segment three times: "+
			"the peer is stalled (it reads nothing, so that its window is 0), or has just gone.", figure.Count(silent))
	}
	f.Why += " The kernel keeps such a socket, with what it has not delivered, until tcp_orphan_retries are used up: " +
		"with 0, which means 8, from one minute and a half to several."
	f.Evidence = []Evidence{
		{
			ID: "last-ack", Name: "waiting for the last ACK",
			Value: float64(n), Limit: new(float64(g.States.Total())), Unit: "sockets",
			Source: "sock_diag: FIN_WAIT1, CLOSING, LAST_ACK, of all sockets of the group",
			Check:  p.in("ss -Htano state fin-wait-1 state closing state last-ack" + filter(g) + " | wc -l"),
		},
		{
			ID: "unanswered", Name: "sent three times or more", Value: float64(silent), Limit: new(float64(n)), Unit: "sockets",
			Source: "sock_diag: idiag_retrans", Check: p.in("ss -Htano state fin-wait-1 state closing state last-ack" + filter(g)),
		},
	}
	f.Remedies = []RemedyID{ReachPeer, FewerOrphanRetries}
	sc.orphanLimit(p, &f)
	f.RuledOut = append(f.RuledOut, RuledOut{"time-wait", "TIME_WAIT",
		figure.Count(g.States[tcp.TimeWait]) + " sockets, whose last segments were answered: they are no orphans"})
	f.WillNotHelp = orphanFolklore
	return f
}

// orphansTogether is a finding where no group is large, and all of them together
// meet the host's limit.
func (sc *scene) orphansTogether(p *place) draft {
	f := draft{}
	n := closing(p.States)
	f.Netns, f.Confidence, f.sockets, f.Severity = p.netns, Medium, n, Warning
	f.Summary = fmt.Sprintf("the host has more orphans than it has room for; "+
		"%s closed connections of %s wait for an answer, in many small groups", figure.Count(n), p.netns.Label)
	f.Why = "The limit is one for all namespaces, and sockets that no program has count against it: " +
		"those whose FIN is not answered, and above 60 s of tcp_fin_timeout those in FIN_WAIT2. " +
		"What exceeds it is reset at once (net/ipv4/tcp.c, tcp_check_oom), and the data that was still to be sent is lost."
	f.Evidence = []Evidence{{
		ID: "last-ack", Name: "waiting for the last ACK",
		Value: float64(n), Limit: new(float64(p.States.Total())), Unit: "sockets",
		Source: "sock_diag: FIN_WAIT1, CLOSING, LAST_ACK, of all sockets of the namespace",
		Check:  p.in("ss -Htano state fin-wait-1 state closing state last-ack | wc -l"),
	}}
	f.Remedies = []RemedyID{ReachPeer, FewerOrphanRetries}
	sc.orphanLimit(p, &f)
	f.doubt("whose orphans they are: the kernel counts them for the host, and no group here has many")
	f.WillNotHelp = orphanFolklore
	return f
}

// fullOfOrphans tells whether the host's orphans are at their limit.
func (sc *scene) fullOfOrphans() bool {
	most, limited := sc.Host.Settings.Int(keyMaxOrphans)
	return limited && sc.Host.Orphans != nil && share(float64(*sc.Host.Orphans), float64(most)) >= sc.threshold(orphansCritical)
}

// orphanLimit tells of the host's limit of orphans, and of what was reset for it.
func (sc *scene) orphanLimit(p *place, f *draft) {
	most, limited := sc.Host.Settings.Int(keyMaxOrphans)
	if sc.Host.Orphans != nil && limited {
		have := float64(*sc.Host.Orphans)
		f.Evidence = append(f.Evidence, Evidence{
			ID: "host-orphans", Name: "orphans of the host", Value: have, Limit: new(float64(most)), Unit: "sockets",
			Source: "/proc/net/sockstat orphan, " + keyMaxOrphans, Check: "grep TCP: /proc/net/sockstat; sysctl " + keyMaxOrphans,
		})
		if fill := share(have, float64(most)); fill >= sc.threshold(orphansCritical) {
			f.Severity = Critical
			f.Summary += fmt.Sprintf("; %s of %s orphans", figure.Count(have), figure.Count(float64(most)))
			f.Remedies = append(f.Remedies, RaiseMaxOrphans)
		} else {
			f.RuledOut = append(f.RuledOut, RuledOut{"max-orphans", "tcp_max_orphans",
				fmt.Sprintf("%s of %s (%s)", figure.Count(have), figure.Count(float64(most)), figure.Percent(fill))})
		}
	} else {
		f.doubt("how near tcp_max_orphans is: it could not be read")
	}
	if rise, _ := p.Counters.Rose(abortOnMemory); rise > 0 {
		f.Severity, f.FailingNow = Critical, true
		f.Summary += fmt.Sprintf("; %s reset for want of room in this window", figure.Items(int(rise), "connection"))
	}
}

var orphanFolklore = []Folklore{
	Folklore(setting.FinTimeoutForOrphans),
	Folklore(setting.ReuseForOrphans),
	Folklore(setting.FewerOrphans),
}
