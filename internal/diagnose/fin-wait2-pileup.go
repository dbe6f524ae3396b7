package diagnose

import (
	"fmt"
	"net/netip"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// FinWait2PileUp: a peer does not close what this side has closed.
const FinWait2PileUp Slug = "fin-wait2-pileup"

var finWait2PileUpRule = Rule{
	Slug:       FinWait2PileUp,
	Title:      "sockets in FIN_WAIT2 pile up: the peer does not close",
	Needs:      "sockets",
	Thresholds: []Threshold{finWait2Sockets},
	CausedBy:   []Slug{CloseWaitLeak},
	Remedies:   []RemedyID{PeerCloses, BoundHalfClose, FinTimeoutDefault},
	judge:      judgeFinWait2PileUp,
}

var finWait2Sockets = Threshold{
	Name: "fin-wait2-pileup.sockets", Default: 100, Unit: "sockets",
	Reason: "with one remote address, and as many of the group 3 s old at least: " +
		"a peer that closes in its own time leaves a few for milliseconds, a busy one some more",
}

// The remedies of this problem alone.
const (
	// PeerCloses: the program at the other end closes its sockets.
	PeerCloses RemedyID = "peer-closes"
	// BoundHalfClose: a program waits for its peer after shutdown() for a bounded time.
	BoundHalfClose RemedyID = "bound-half-close"
)

func judgeFinWait2PileUp(sc *scene) (v verdict) {
	least := sc.threshold(finWait2Sockets)
	s := survey{
		none: "no socket is in FIN_WAIT2",
		judge: func(_ *place, g *snapshot.Group, _ *verdict) (standing, float64) {
			switch n, _ := mostFinWait2(g); {
			case float64(min(n, finWait2Of(g.States)-g.YoungFinWait2)) >= least:
				return problem, float64(n)
			case n > 0:
				return below, float64(n)
			default:
				return apart, 0
			}
		},
		report: sc.finWait2,
		fullest: func(p *place, g *snapshot.Group) string {
			n, remote := mostFinWait2(g)
			return fmt.Sprintf("the most in FIN_WAIT2 with one remote are %s sockets (%s with %s, in %s)",
				figure.Count(n), who(g), remote, p.netns.Label)
		},
		other: func(p *place) bool { return float64(p.mostInOther(finWait2Of(p.Other.States))) >= least },
	}
	for _, p := range sc.readable(&v) {
		s.walk(p, &v)
	}
	v.absent = s.absent()
	return v
}

// finWait2Of counts FIN_WAIT2 as full sockets and as time-wait sockets.
func finWait2Of(s tcp.States) int { return s[tcp.FinWait2] + s[tcp.FinWait2TimeWait] }

// mostFinWait2 is how many sockets in FIN_WAIT2 a group has with one remote address.
func mostFinWait2(g *snapshot.Group) (n int, remote netip.Addr) {
	if g.Role != tcp.Acceptor {
		return finWait2Of(g.States), g.Remote.Addr
	}
	for _, c := range g.Clients {
		if c.FinWait2 > n {
			n, remote = c.FinWait2, c.Addr
		}
	}
	return n, remote
}

func (sc *scene) finWait2(p *place, g *snapshot.Group, _ *verdict) draft {
	f := p.about(g)
	n, remote := mostFinWait2(g)
	f.sockets = finWait2Of(g.States)
	f.Severity = Warning
	orphaned := g.States[tcp.FinWait2TimeWait] + g.NoFile[tcp.FinWait2]
	owned := finWait2Of(g.States) - orphaned
	if owned == 0 {
		f.orphanOwners()
	}

	f.Summary = fmt.Sprintf("%s does not close: %s connections with it are in FIN_WAIT2", remote, figure.Count(n))
	if g.Peer != nil && len(g.Peer.Owners) > 0 {
		f.Summary = fmt.Sprintf("%s (%s) does not close: %s connections with it are in FIN_WAIT2",
			remote, g.Peer.Owners[0].Process, figure.Count(n))
	}
	f.Why = "This side has sent its FIN and the peer's kernel has acknowledged it; the peer's program has not closed its side. "
	timeout, known := p.Settings.Int(keyFinTimeout)
	switch {
	case owned > 0 && orphaned > 0:
		f.Why += fmt.Sprintf("%s have lost their program here and end by tcp_fin_timeout; "+
			"%s still have one, which ended its direction only (shutdown), and no time-out ends them.",
			figure.Count(orphaned), figure.Count(owned))
	case owned > 0:
		f.Why += "A program here still has them: it ended its direction only (shutdown), waits for the peer, and no time-out ends that."
	default:
		f.Why += "No program here has them any more: each ends by itself, after tcp_fin_timeout, " +
			"and what the peer sends then is answered by a reset."
	}
	if g.Role == tcp.Connector {
		f.Why += " Each keeps its source port."
	}
	f.Evidence = []Evidence{
		{
			ID: "orphaned", Name: "orphaned in FIN_WAIT2",
			Value: float64(orphaned), Limit: new(float64(g.States.Total())), Unit: "sockets",
			Source: "sock_diag: no file, or a time-wait socket that stands in; of all sockets of the group",
			Check:  p.in("ss -Htano state fin-wait-2" + filter(g) + " | grep -c timewait"),
		},
		{
			ID: "owned", Name: "owned in FIN_WAIT2", Value: float64(owned), Unit: "sockets", Source: "sock_diag: sockets with a file",
			Check: p.in("ss -Htanpo state fin-wait-2" + filter(g) + " | grep -vc timewait"),
		},
	}
	if known {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "fin-timeout", Name: "tcp_fin_timeout", Value: float64(timeout), Unit: "s",
			Source: keyFinTimeout + ": how long orphans wait", Check: p.sysctl(keyFinTimeout),
		})
	}
	f.RuledOut = []RuledOut{{"time-wait", "TIME_WAIT",
		figure.Count(g.States[tcp.TimeWait]) + " sockets, whose peers did close: they are none of these"}}
	if g.Peer == nil {
		f.doubt("which program at the peer: its end was not read. There, `linger` shows the same connections in CLOSE_WAIT")
	}
	f.Remedies = []RemedyID{PeerCloses}
	if owned > 0 {
		f.Remedies = []RemedyID{PeerCloses, BoundHalfClose}
	}
	if known && timeout > setting.DefaultFinTimeout {
		f.Remedies = append(f.Remedies, FinTimeoutDefault)
	}
	f.WillNotHelp = []Folklore{
		Folklore(setting.ReuseForPeers),
		Folklore(setting.FinTimeoutForPeers),
		noRecycle,
	}
	return f
}
