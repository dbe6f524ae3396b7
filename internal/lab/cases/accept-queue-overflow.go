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

// shortBacklog is filled in a second.
const shortBacklog = 16

var acceptQueueOverflow = Case{
	Scenario: &Scenario{
		Slug:         "accept-queue-overflow",
		Title:        "a service does not accept, and its queue of 16 is full",
		Cure:         "the service accepts",
		Size:         40,
		Make:         makeAcceptQueueOverflow,
		Draw:         Draw{Sizes: [2]int{25, 120}, OneHost: true},
		Consequences: []diagnose.Slug{"close-wait-leak", "fin-wait2-pileup", "orphan-pileup", "vanished-connections"},
	},
	Experiments: []lab.Experiment{acceptQueueOverflowProof},
}

func makeAcceptQueueOverflow(ctx context.Context, b *Built, o Options) error {
	server, err := b.ServerNode.Start(ctx, stage.ServerProcess)
	if err != nil {
		return err
	}
	p := stage.Parties{Server: server, Service: netip.AddrPortFrom(b.ServerNode.Addr(o.IPv6), stage.ServicePort)}
	b.Expect = b.expectAcceptor(p)
	spec := stage.ServeSpec{Endpoints: []netip.AddrPort{p.Service}, Close: stage.AcceptNever, Backlog: shortBacklog}
	if o.Cured {
		spec.Close = stage.CloseSecond
	}
	if _, err := server.Serve(ctx, spec); err != nil {
		return err
	}
	if p.Client, err = b.ClientNode.Start(ctx, stage.ClientProcess); err != nil {
		return err
	}
	// Each attempt gives up before the kernel would send its SYN again.
	dial := stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size, Batch: 1, PatienceMS: 100}
	if _, err := p.Client.Churn(ctx, dial); err != nil {
		return err
	}
	dial.Count, dial.Rate = 0, 10
	return p.Client.Begin(ctx, dial)
}

// queued tries 40 connects to a service that does not accept, and gives each a tenth
// of a second: less than the kernel takes to send a SYN again.
func queued(serve stage.ServeSpec, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, serve, set...)
		if err != nil {
			return err
		}
		patience := int64(150)
		if serve.Close != stage.AcceptNever {
			patience = 5000 // a service that accepts may be late on a busy machine
		}
		done, err := s.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 40, PatienceMS: patience})
		if err != nil {
			return err
		}
		t.RecordDialed(done)
		overflows, err := s.ServerNode.Counter("TcpExtListenOverflows")
		if err != nil {
			return err
		}
		t.Record("overflows", overflows)
		return nil
	}
}

var acceptQueueOverflowProof = lab.Experiment{
	Name: "accept-queue-overflow", Problem: "accept-queue-overflow",
	Title:    "A listener's queue is full",
	Question: "Connects time out, and TIME_WAIT is blamed. What helps?",
	Setup:    "a service with a backlog of 16 that accepts nothing; 40 connects",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		lab.Failures, lab.TimedOut, lab.Succeeded, {Name: "overflows", Title: "ListenOverflows", Unit: "segments"},
	},
	Arms: []lab.Arm{
		{
			Arm: base("nobody accepts", proof.Exactly("failed", 23), proof.Exactly("EINPROGRESS", 23),
				proof.Exactly("opened", 17)),
			Seconds: 5, Run: queued(stage.ServeSpec{Close: stage.AcceptNever, Backlog: shortBacklog}),
		},
		{
			Arm:     remedy("accept", "Let the service accept", "it calls accept()", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: queued(stage.ServeSpec{Close: stage.CloseSecond, Backlog: shortBacklog}),
		},
		{
			Arm:     remedy("backlog", "A longer queue", "listen(fd, 128)", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: queued(stage.ServeSpec{Close: stage.AcceptNever, Backlog: 128}),
		},
		{
			Arm: why(turning("somaxconn", folklore("somaxconn", "net.core.somaxconn alone", "net.core.somaxconn=65535", proof.NoEffect)),
				"The program has asked for 16 in listen(), and the smaller one counts."),
			Seconds: 5, Run: queued(stage.ServeSpec{Close: stage.AcceptNever, Backlog: shortBacklog},
				lab.AtServer(setting.Somaxconn, "65535")),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 5, Run: queued(stage.ServeSpec{Close: stage.AcceptNever, Backlog: shortBacklog},
				lab.AtServer(setting.TWReuse, "1")),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 5, Run: queued(stage.ServeSpec{Close: stage.AcceptNever, Backlog: shortBacklog},
				lab.AtServer(setting.FinTimeout, "5")),
		},
	},
}
