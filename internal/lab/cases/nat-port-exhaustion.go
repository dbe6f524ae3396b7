package cases

import (
	"context"
	"net/netip"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
)

var natPortExhaustion = Case{
	Scenario: &Scenario{
		Slug:         "nat-port-exhaustion",
		Title:        "a source NAT has 32 ports, and its client opens more connections than that",
		Cure:         "the NAT has all ports",
		Size:         32,
		Make:         makeNatPortExhaustion,
		Draw:         Draw{Sharable: true},
		Consequences: []diagnose.Slug{"orphan-pileup"},
	},
	Experiments: []lab.Experiment{natPortExhaustionProof},
}

func makeNatPortExhaustion(ctx context.Context, b *Built, o Options) error {
	own := b.ClientNode.Addr(o.IPv6)
	inside, err := second(b.ClientNode, own)
	if err != nil {
		return err
	}
	rule := stage.Translation{From: inside, To: own, Low: 50000, High: 50031}
	if o.Cured {
		rule.Low, rule.High = 1024, 65535
	}
	if err := b.ClientNode.Translate(rule); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = Expectation{Node: b.ClientNode}
	// They stay open: a port of a closed connection is given away at once (seen on
	// kernel 6.18; older ones keep it for 120 s).
	dial := stage.DialSpec{To: []netip.AddrPort{p.Service}, From: []netip.Addr{inside}, Count: o.Size, PatienceMS: 50}
	if _, err := p.Client.Hold(ctx, dial); err != nil {
		return err
	}
	dial.Count, dial.Rate, dial.Batch = 0, 15, 1
	return p.Client.Begin(ctx, dial)
}

// translated opens 64 connections through a masquerade and counts those that fail.
func translated(rule stage.Translation, addresses int, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		own := t.Addr(s.ClientNode)
		inside, err := second(s.ClientNode, own)
		if err != nil {
			return err
		}
		if err := s.ClientNode.Translate(stage.Translation{From: inside, To: own, Low: rule.Low, High: rule.High}); err != nil {
			return err
		}
		dial := stage.DialSpec{To: []netip.AddrPort{s.Service}, From: []netip.Addr{inside}, Count: 64 / addresses, PatienceMS: 150}
		done, err := s.Client.Hold(ctx, dial)
		if err == nil && addresses > 1 {
			var more stage.Dialed
			more, err = holdElsewhere(ctx, t, s, dial)
			done = done.Plus(more)
		}
		t.RecordDialed(done)
		return err
	}
}

// holdElsewhere opens as many connections to another address of the service: ports are
// counted for each.
func holdElsewhere(ctx context.Context, t *lab.Trial, s lab.Scene, dial stage.DialSpec) (stage.Dialed, error) {
	other, err := second(s.ServerNode, t.Addr(s.ServerNode))
	if err != nil {
		return stage.Dialed{}, err
	}
	dial.To = []netip.AddrPort{netip.AddrPortFrom(other, stage.ServicePort)}
	if _, err := s.Server.Serve(ctx, stage.ServeSpec{Endpoints: dial.To, Close: stage.CloseSecond}); err != nil {
		return stage.Dialed{}, err
	}
	return s.Client.Hold(ctx, dial)
}

var natPortExhaustionProof = lab.Experiment{
	Name: "nat-port-exhaustion", Problem: "nat-port-exhaustion",
	Title:      "A source NAT runs out of ports",
	Question:   "Which knob gives a masquerade more connections?",
	Setup:      "a real source NAT (nftables) with 32 ports; 64 connections to one service, kept open",
	Load:       lab.Waits,
	Quantities: []proof.Quantity{lab.Failures, lab.TimedOut, lab.Succeeded},
	Arms: []lab.Arm{
		{
			Arm:     base("32 ports", proof.Exactly("failed", 32)),
			Seconds: 6, Run: translated(stage.Translation{Low: 50000, High: 50031}, 1),
		},
		{
			Arm:     remedy("more-ports", "All ports", "snat to ADDRESS:1024-65535", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: translated(stage.Translation{Low: 1024, High: 65535}, 1),
		},
		{
			Arm: remedy("second-destination", "A second address of the service", "two addresses, in turn", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 1, Run: translated(stage.Translation{Low: 50000, High: 50031}, 2),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at the NAT", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 6, Run: translated(stage.Translation{Low: 50000, High: 50031}, 1,
				lab.AtClient(setting.TWReuse, "1")),
		},
		{
			Arm: turning("ip_local_port_range", folklore("wider-range", "A wider ip_local_port_range at the NAT",
				setting.LocalPortRange+"=\"1024 65535\"", proof.NoEffect)),
			Seconds: 6, Run: translated(stage.Translation{Low: 50000, High: 50031}, 1,
				lab.AtClient(setting.LocalPortRange, "1024 65535")),
		},
	},
}
