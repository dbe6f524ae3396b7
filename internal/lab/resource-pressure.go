package lab

import (
	"context"
	"fmt"
	"net/netip"

	"linger/internal/proof"
	"linger/internal/tcp"
)

var resourcePressure = Scenario{
	Slug:  "resource-pressure",
	Title: "a service reads nothing, and its clients go on sending",
	Cure:  "the clients send nothing",
	Size:  20,
	build: func(ctx context.Context, b *Built, o Options) error {
		// Few bytes of buffer, so that it is full at once.
		if err := b.server.Set("net.ipv4.tcp_rmem", "4096 8192 8192"); err != nil {
			return err
		}
		p, err := b.start(ctx, o, AcceptNever)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.server}
		done, err := p.client.Hold(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		if err != nil || o.Cured {
			return err
		}
		return p.client.Flood(ctx)
	},
}

// throttled has a service answer connections, one after the other, with and without a
// quota of CPU time, and beside TIME_WAIT sockets of its own.
func throttled(quota bool, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		const requests = 2000
		s, err := t.stage(ctx, ServeSpec{Close: CloseFirst}, set...)
		if err != nil {
			return err
		}
		dial := DialSpec{To: []netip.AddrPort{s.service}, Count: 5000, PeerCloses: true}
		if _, err := s.parties.client.Churn(ctx, dial); err != nil {
			return err
		}
		if err := t.recordStates(ctx, servicePort, tcp.TimeWait, map[string]*Node{"server_time_wait": s.server}); err != nil {
			return err
		}
		group, err := t.controlGroup("cpu", s.parties.server)
		if err != nil {
			return err
		}
		if quota {
			if err := group.limitCPU(2); err != nil {
				return err
			}
		}
		dial.Count, dial.Batch = requests, 1
		done, err := s.parties.client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		t.Record("per_second", float64(done.Opened)/done.Seconds)
		heldUp, err := group.heldUp()
		t.Record("held_up", heldUp)
		return err
	}
}

var resourcePressureProof = Experiment{
	Name: "resource-pressure", Problem: "resource-pressure",
	Title:    "A service gets no CPU",
	Question: "A slow service has thousands of TIME_WAIT. Are they why?",
	Setup:    "a service kept to 2 % of a CPU by a control group, beside 5,000 TIME_WAIT of its own; 2,000 requests, one after the other",
	Load:     Alone,
	Quantities: []proof.Quantity{
		{Name: "held_up", Title: "periods of 0.1 s in which the quota stops the service", Unit: "%", Better: proof.Less, Margin: proof.Margin{Absolute: 20}},
		{Name: "per_second", Title: "requests answered", Unit: "requests/s"}, serverHolds,
	},
	Arms: []Arm{
		{Arm: base("2 % of a CPU, 5,000 TIME_WAIT", proof.Between("held_up", 80, 100)), Seconds: 5, Run: throttled(true)},
		{Arm: remedy("more-cpu", "No quota, and as many TIME_WAIT", "cpu.max=max", proof.Works, proof.Exactly("held_up", 0)), Seconds: 1, Run: throttled(false)},
		{Arm: turning("tcp_max_tw_buckets", folklore("no-time-wait", "The quota, and almost no TIME_WAIT", "net.ipv4.tcp_max_tw_buckets=10", proof.NoEffect, proof.Between("held_up", 80, 100), upTo(10))), Seconds: 5, Run: throttled(true, buckets("10"))},
	},
}
