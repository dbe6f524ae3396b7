package cases

import (
	"context"
	"net/netip"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
)

var synOnTimeWait = Case{
	Scenario: &Scenario{
		Slug:         "syn-on-time-wait",
		Title:        "two hosts behind a NAT that forgets a closed connection after a second use the same ports",
		Cure:         "the NAT remembers it for longer than the service's 60 s",
		Make:         makeSynOnTimeWait,
		Draw:         Draw{Ports: func(Options) int { return natRange }},
		Consequences: []diagnose.Slug{"connection-churn", "vanished-connections"},
	},
	Experiments: []lab.Experiment{SynOnTimeWaitProof},
}

// natRange is how many source ports its client has.
const natRange = 256

func makeSynOnTimeWait(ctx context.Context, b *Built, o Options) error {
	// The second host is a second address of the client's node, translated to the
	// first: the clock of its time stamps is another, as it is made of the addresses
	// before translation (net/core/secure_seq.c).
	own, second := b.ClientNode.Addr(o.IPv6), second(b.ClientNode.Addr(o.IPv6))
	if err := b.ClientNode.AddAddress(second); err != nil {
		return err
	}
	if err := b.ClientNode.Translate(stage.Translation{From: second, To: own}); err != nil {
		return err
	}
	if err := b.ClientNode.NarrowRange(natRange); err != nil {
		return err
	}
	if !o.Cured {
		for _, state := range []string{"time_wait", "close", "last_ack", "close_wait", "fin_wait"} {
			if err := b.ClientNode.Set("net.netfilter.nf_conntrack_tcp_timeout_"+state, "1"); err != nil {
				return err
			}
		}
	}
	p, err := b.start(ctx, o, stage.CloseFirst)
	if err != nil {
		return err
	}
	b.Expect = b.expectAcceptor(p)
	dial := stage.DialSpec{
		To: []netip.AddrPort{p.Service}, From: []netip.Addr{own, second}, PeerCloses: true, Batch: 1,
		// A connect that is refused holds up the next ones for so long: several are to fall into each second.
		PatienceMS: 100,
	}
	// Every port that connect() prefers once, so that each has its TIME_WAIT at the service.
	dial.Count, dial.Rate = natRange, 200
	if _, err := p.Client.Churn(ctx, dial); err != nil {
		return err
	}
	dial.Count, dial.Rate = 0, 40
	return p.Client.Begin(ctx, dial)
}

// second is another address of a node's link.
func second(addr netip.Addr) netip.Addr {
	bytes := addr.AsSlice()
	bytes[len(bytes)-1] += 100
	other, _ := netip.AddrFromSlice(bytes)
	return other
}
