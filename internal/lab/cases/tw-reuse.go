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
)

// The connections are fewer than 20 a second over a minute, and they are over when
// it is judged, so that what stands in the way of their ports is all that is wrong.
var twReuse = Case{
	Scenario: &Scenario{
		Slug:  "tw-reuse",
		Title: "a client's TIME_WAIT holds source ports that tcp_tw_reuse would free, and it is off",
		Cure:  "tcp_tw_reuse is 1",
		Size:  900,
		Make:  makeTwReuse,
		Draw: Draw{
			Sizes: [2]int{400, 1100}, OneHost: true, Sharable: true,
			Ports: func(o Options) int { return 2 * o.Size },
		},
		Consequences: []diagnose.Slug{"client-closes-first", "port-exhaustion"},
	},
	Experiments: []lab.Experiment{twReuseProof},
}

func makeTwReuse(ctx context.Context, b *Built, o Options) error {
	if err := b.ClientNode.NarrowRange(2 * o.Size); err != nil {
		return err
	}
	reuse := "0"
	if o.Cured {
		reuse = "1"
	}
	if err := b.ClientNode.Set(setting.TWReuse, reuse); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	if err := p.Pool(ctx, o.Size/10); err != nil {
		return err
	}
	if err := p.Burst(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size}); err != nil {
		return err
	}
	b.RipeAt = time.Now().Add(QuietAfterBurst)
	return nil
}

// TakeOver fills 200 source ports with TIME_WAIT, waits, and connects a hundred times.
func TakeOver(wait time.Duration, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		return reconnect(ctx, t, s.ClientNode, s.Parties, wait)
	}
}

// reconnect fills and connects again.
func reconnect(ctx context.Context, t *lab.Trial, client *stage.Node, p stage.Parties, wait time.Duration) error {
	const ports, again = 200, 100
	if err := client.NarrowRange(ports); err != nil {
		return err
	}
	dial := stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: ports, Batch: 1}
	if _, err := p.Client.Churn(ctx, dial); err != nil {
		return err
	}
	// The delay counts from TIME_WAIT on, which begins with the other end's FIN.
	if err := stage.Settled(ctx, stage.ServicePort, client); err != nil {
		return err
	}
	stage.Sleep(ctx, wait)
	before, err := client.Counter("TcpExtTWRecycled")
	if err != nil {
		return err
	}
	dial.Count = again
	done, err := p.Client.Churn(ctx, dial)
	if err != nil {
		return err
	}
	after, err := client.Counter("TcpExtTWRecycled")
	if err != nil {
		return err
	}
	t.RecordDialed(done)
	t.Record("taken_over", after-before)
	return nil
}

// takeOverOnLoopback is takeOver within one host.
func takeOverOnLoopback(ctx context.Context, t *lab.Trial) error {
	topology, err := stage.NewLoopback("host")
	if err != nil {
		return err
	}
	t.Defer(topology.Close)
	host := topology.Nodes[0]
	for key, value := range map[string]string{setting.TWReuse: "2", setting.RFC1337: "1"} {
		if err := host.Set(key, value); err != nil {
			return err
		}
	}
	p := stage.Parties{Service: t.Service(host, stage.ServicePort)}
	if p.Server, err = host.Start(ctx, stage.ServerProcess); err != nil {
		return err
	}
	if _, err := p.Server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{p.Service}, Close: stage.CloseSecond}); err != nil {
		return err
	}
	if p.Client, err = host.Start(ctx, stage.ClientProcess); err != nil {
		return err
	}
	// With the mode on, the ports never run out for long: it fills them within a second.
	return reconnect(ctx, t, host, p, AfterDelay)
}

// AfterDelay is longer than the second that TIME_WAIT must be old.
const AfterDelay = 1500 * time.Millisecond

var twReuseProof = lab.Experiment{
	Name: "tw-reuse", Problem: "tw-reuse",
	Title:    "tcp_tw_reuse lets connect() take over TIME_WAIT",
	Question: "When does it, and when does it not?",
	Setup:    "200 source ports, all in TIME_WAIT for 1.5 s; then 100 connects to the same service",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		lab.Failures, lab.NoPort, lab.Succeeded, {Name: "taken_over", Title: "TIME_WAIT taken over (TWRecycled)", Unit: "sockets"},
	},
	Arms: []lab.Arm{
		{
			Arm:     base("tcp_tw_reuse=0", proof.Exactly("failed", 100), proof.Exactly("taken_over", 0)),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "0")),
		},
		{
			Arm: turning("tcp_tw_reuse", remedy("on", "tcp_tw_reuse=1", "net.ipv4.tcp_tw_reuse=1", proof.Works, proof.Exactly("failed", 0),
				proof.Exactly("taken_over", 100))),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "1")),
		},
		{
			Arm: turning("tcp_tw_reuse", observe("loopback-mode", "tcp_tw_reuse=2, the default, between two hosts", "net.ipv4.tcp_tw_reuse=2",
				proof.NoEffect, proof.Exactly("taken_over", 0))),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "2")),
		},
		{
			Arm: turning("tcp_tw_reuse", observe("loopback", "tcp_tw_reuse=2 on the loopback interface", "net.ipv4.tcp_tw_reuse=2, to 127.0.0.1",
				proof.Works, proof.Exactly("failed", 0))),
			Seconds: 3, Run: takeOverOnLoopback,
		},
		{
			Arm: againOverIPv6(turning("tcp_tw_reuse", remedy("ipv6", "tcp_tw_reuse=1 over IPv6: the key of net.ipv4 governs both",
				"net.ipv4.tcp_tw_reuse=1, to an IPv6 address", proof.Works, proof.Exactly("failed", 0),
				proof.Exactly("taken_over", 100)))),
			Seconds: 3, Run: lab.OverIPv6(TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "1"))),
		},
		{
			Arm: turning("tcp_tw_reuse", observe("ipv6-loopback", "tcp_tw_reuse=2 to ::1", "net.ipv4.tcp_tw_reuse=2, to ::1", proof.Works,
				proof.Exactly("failed", 0))),
			Seconds: 3, Run: lab.OverIPv6(takeOverOnLoopback),
		},
		{
			Arm: why(turning("tcp_tw_reuse", observe("no-time-stamps", "tcp_tw_reuse=1 without time stamps",
				"net.ipv4.tcp_tw_reuse=1, tcp_timestamps=0", proof.NoEffect, proof.Exactly("taken_over", 0))),
				"Nothing would tell segments of the old connection from those of the new one."),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "1"),
				lab.AtClient(setting.Timestamps, "0")),
		},
		{
			Arm: turning("tcp_tw_reuse", observe("before-the-delay", "tcp_tw_reuse=1 before its delay is over",
				"net.ipv4.tcp_tw_reuse=1, tcp_tw_reuse_delay=60000", proof.NoEffect, proof.Exactly("taken_over", 0))),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "1"),
				lab.AtClient(setting.TWReuseDelay, "60000")),
		},
		{
			Arm: turning("tcp_tw_reuse", folklore("at-the-service", "tcp_tw_reuse at the service", setting.TWReuse+"=1 on the other host",
				proof.NoEffect)),
			Seconds: 3, Run: TakeOver(AfterDelay, lab.AtClient(setting.TWReuse, "0"),
				lab.AtServer(setting.TWReuse, "1")),
		},
	},
}
