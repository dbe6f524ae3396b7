package cases

import (
	"context"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// leakAge is the age from which CLOSE_WAIT is more than a program that is about to
// close; a little more, since ages are read with a step of the kernel's clock.
const leakAge = 3500 * time.Millisecond

var closeWaitLeak = Case{
	Scenario: &Scenario{
		Slug:         "close-wait-leak",
		Title:        "a service does not close connections that its client has closed",
		Cure:         "the service closes them",
		Size:         200,
		Make:         makeCloseWaitLeak,
		Draw:         Draw{Sizes: [2]int{110, 600}, OneHost: true, Sharable: true},
		Consequences: []diagnose.Slug{"fin-wait2-pileup"},
	},
	Experiments: []lab.Experiment{closeWaitLeakProof},
}

func makeCloseWaitLeak(ctx context.Context, b *Built, o Options) error {
	closing := stage.CloseNever
	if o.Cured {
		closing = stage.CloseSecond
	}
	p, err := b.start(ctx, o, closing)
	if err != nil {
		return err
	}
	b.Expect = b.expectAcceptor(p)
	// With an end in sight, as it is on a real host.
	if err := p.Server.LimitDescriptors(ctx, uint64(4*o.Size)); err != nil {
		return err
	}
	if err := p.Burst(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size}); err != nil {
		return err
	}
	b.RipeAt = time.Now().Add(leakAge)
	return nil
}

// leaked has a client close 100 connections, and counts what is left of them at the
// service some seconds later.
func leaked(closing stage.Closing, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: closing}, set...)
		if err != nil {
			return err
		}
		if err := s.Burst(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 100}); err != nil {
			return err
		}
		stage.Sleep(ctx, leakAge)
		return t.RecordStates(ctx, stage.ServicePort, tcp.CloseWait, map[string]*stage.Node{"close_wait": s.ServerNode})
	}
}

var closeWaitLeakProof = lab.Experiment{
	Name: "close-wait-leak", Problem: "close-wait-leak",
	Title:    "A program does not close what its peer has closed",
	Question: "Which setting ends CLOSE_WAIT?",
	Setup:    "100 connections that the client closes and the service does not; counted 3.5 s later",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "close_wait", Title: "CLOSE_WAIT at the service", Unit: "sockets", Better: proof.Less},
	},
	Arms: []lab.Arm{
		{Arm: base("the service does not close", proof.Exactly("close_wait", 100)), Seconds: 5, Run: leaked(stage.CloseNever)},
		{
			Arm: remedy("close", "Let the program close", "close() at the end of input", proof.Works,
				proof.Exactly("close_wait", 0)),
			Seconds: 5, Run: leaked(stage.CloseSecond),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=1", proof.NoEffect)),
			Seconds: 5, Run: leaked(stage.CloseNever, lab.AtServer(setting.FinTimeout, "1")),
		},
		{
			Arm: why(turning("tcp_keepalive_time", folklore("keepalive", "A lower tcp_keepalive_time",
				"net.ipv4.tcp_keepalive_time=1, _intvl=1, _probes=1", proof.NoEffect)),
				"The kernel has nothing to wait for: the peer has closed, and the program has not."),
			Seconds: 5, Run: leaked(stage.CloseNever, lab.AtServer(setting.KeepaliveTime, "1"),
				lab.AtServer(setting.KeepaliveInterval, "1"), lab.AtServer(setting.KeepaliveProbes, "1")),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 5, Run: leaked(stage.CloseNever, lab.AtServer(setting.TWReuse, "1")),
		},
	},
}
