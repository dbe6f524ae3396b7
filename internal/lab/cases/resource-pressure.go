package cases

import (
	"context"
	"fmt"
	"net/netip"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/tcp"
)

var resourcePressure = Case{
	Scenario: &Scenario{
		Slug:  "resource-pressure",
		Title: "a service reads nothing, and its clients go on sending",
		Cure:  "the clients send nothing",
		Size:  20,
		Make:  makeResourcePressure,
		// Buffers that are full stop their senders, and the sign ends.
		Draw:         Draw{Sizes: [2]int{10, 40}, Fleeting: true},
		Consequences: []diagnose.Slug{"accept-queue-overflow"},
	},
	Experiments: []lab.Experiment{resourcePressureProof, timeWaitMemoryProof, memoryLimitProof},
}

func makeResourcePressure(ctx context.Context, b *Built, o Options) error {
	// Few bytes of buffer, so that it is full at once.
	if err := b.ServerNode.Set("net.ipv4.tcp_rmem", "4096 8192 8192"); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.AcceptNever)
	if err != nil {
		return err
	}
	b.Expect = Expectation{Node: b.ServerNode}
	done, err := p.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
	}
	if err != nil || o.Cured {
		return err
	}
	return p.Client.Flood(ctx)
}

// throttled has a service answer connections, one after the other, with and without a
// quota of CPU time, and beside TIME_WAIT sockets of its own.
func throttled(quota bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		const requests = 2000
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseFirst}, set...)
		if err != nil {
			return err
		}
		dial := stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 5000, PeerCloses: true}
		if _, err := s.Client.Churn(ctx, dial); err != nil {
			return err
		}
		if err := t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait,
			map[string]*stage.Node{"server_time_wait": s.ServerNode}); err != nil {
			return err
		}
		group, err := controlGroupOf(t, "cpu", s.Server)
		if err != nil {
			return err
		}
		if quota {
			if err := group.LimitCPU(2); err != nil {
				return err
			}
		}
		dial.Count, dial.Batch = requests, 1
		done, err := s.Client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		t.Record("per_second", float64(done.Opened)/done.Seconds)
		heldUp, err := group.Throttled()
		t.Record("held_up", heldUp)
		return err
	}
}

var resourcePressureProof = lab.Experiment{
	Name: "resource-pressure", Problem: "resource-pressure",
	Title:    "A service gets no CPU",
	Question: "A slow service has thousands of TIME_WAIT. Are they why?",
	Setup: "a service kept to 2 % of a CPU by a control group, beside 5,000 TIME_WAIT of its own; 2,000 requests, one after the " +
		"other",
	Load: lab.Alone,
	Quantities: []proof.Quantity{
		{Name: "held_up", Title: "periods of 0.1 s in which the quota stops the service", Unit: "%", Better: proof.Less,
			Margin: proof.Margin{Absolute: 20}},
		{Name: "per_second", Title: "requests answered", Unit: "requests/s"}, lab.ServerTimeWait,
	},
	Arms: []lab.Arm{
		{Arm: base("2 % of a CPU, 5,000 TIME_WAIT", proof.Between("held_up", 80, 100)), Seconds: 5, Run: throttled(true)},
		{
			Arm: remedy("more-cpu", "No quota, and as many TIME_WAIT", "cpu.max=max", proof.Works,
				proof.Exactly("held_up", 0)),
			Seconds: 1, Run: throttled(false),
		},
		{
			Arm: turning("tcp_max_tw_buckets", folklore("no-time-wait", "The quota, and almost no TIME_WAIT", "net.ipv4.tcp_max_tw_buckets=10",
				proof.NoEffect, proof.Between("held_up", 80, 100), upTo(10))),
			Seconds: 5, Run: throttled(true, Buckets("10")),
		},
	},
}
