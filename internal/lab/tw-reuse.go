package lab

import (
	"context"
	"net/netip"
	"time"

	"linger/internal/proof"
)

// The connections are fewer than 20 a second over a minute, and they are over when
// it is judged, so that what stands in the way of their ports is all that is wrong.
var twReuse = Scenario{
	Slug:  "tw-reuse",
	Title: "a client's TIME_WAIT holds source ports that tcp_tw_reuse would free, and it is off",
	Cure:  "tcp_tw_reuse is 1",
	Size:  900,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := narrowRange(b.client, 2*o.Size); err != nil {
			return err
		}
		reuse := "0"
		if o.Cured {
			reuse = "1"
		}
		if err := b.client.Set("net.ipv4.tcp_tw_reuse", reuse); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		if err := pool(ctx, p, o.Size/10); err != nil {
			return err
		}
		if err := burst(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size}); err != nil {
			return err
		}
		b.RipeAt = time.Now().Add(quietAfterBurst)
		return nil
	},
}

// takeOver fills 200 source ports with TIME_WAIT, waits, and connects a hundred times.
func takeOver(wait time.Duration, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		return reconnect(ctx, t, s.client, s.parties, wait)
	}
}

// reconnect fills and connects again.
func reconnect(ctx context.Context, t *Trial, client *Node, p parties, wait time.Duration) error {
	const ports, again = 200, 100
	if err := narrowRange(client, ports); err != nil {
		return err
	}
	dial := DialSpec{To: []netip.AddrPort{p.service}, Count: ports, Batch: 1}
	if _, err := p.client.Churn(ctx, dial); err != nil {
		return err
	}
	// The delay counts from TIME_WAIT on, which begins with the other end's FIN.
	if err := settled(ctx, client); err != nil {
		return err
	}
	sleep(ctx, wait)
	before, err := client.counter("TcpExtTWRecycled")
	if err != nil {
		return err
	}
	dial.Count = again
	done, err := p.client.Churn(ctx, dial)
	if err != nil {
		return err
	}
	after, err := client.counter("TcpExtTWRecycled")
	if err != nil {
		return err
	}
	t.record(done)
	t.Record("taken_over", after-before)
	return nil
}

// takeOverOnLoopback is takeOver within one host.
func takeOverOnLoopback(ctx context.Context, t *Trial) error {
	topology, err := NewLoopback("host")
	if err != nil {
		return err
	}
	t.Defer(topology.Close)
	host := topology.Nodes[0]
	for key, value := range map[string]string{"net.ipv4.tcp_tw_reuse": "2", "net.ipv4.tcp_rfc1337": "1"} {
		if err := host.Set(key, value); err != nil {
			return err
		}
	}
	p := parties{service: t.service(host, servicePort)}
	if p.server, err = host.Start(ctx, serverProcess); err != nil {
		return err
	}
	if _, err := p.server.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{p.service}, Close: CloseSecond}); err != nil {
		return err
	}
	if p.client, err = host.Start(ctx, clientProcess); err != nil {
		return err
	}
	// With the mode on, the ports never run out for long: it fills them within a second.
	return reconnect(ctx, t, host, p, afterDelay)
}

// afterDelay is longer than the second that TIME_WAIT must be old.
const afterDelay = 1500 * time.Millisecond

var twReuseProof = Experiment{
	Name: "tw-reuse", Problem: "tw-reuse",
	Title:    "tcp_tw_reuse lets connect() take over TIME_WAIT",
	Question: "When does it, and when does it not?",
	Setup:    "200 source ports, all in TIME_WAIT for 1.5 s; then 100 connects to the same service",
	Load:     Waits,
	Quantities: []proof.Quantity{
		failures, noPort, succeeded, {Name: "taken_over", Title: "TIME_WAIT taken over (TWRecycled)", Unit: "sockets"},
	},
	Arms: []Arm{
		{Arm: base("tcp_tw_reuse=0", proof.Exactly("failed", 100), proof.Exactly("taken_over", 0)), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "0"})},
		{Arm: turning("tcp_tw_reuse", remedy("on", "tcp_tw_reuse=1", "net.ipv4.tcp_tw_reuse=1", proof.Works, proof.Exactly("failed", 0), proof.Exactly("taken_over", 100))), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"})},
		{Arm: turning("tcp_tw_reuse", observe("loopback-mode", "tcp_tw_reuse=2, the default, between two hosts", "net.ipv4.tcp_tw_reuse=2", proof.NoEffect, proof.Exactly("taken_over", 0))), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "2"})},
		{Arm: turning("tcp_tw_reuse", observe("loopback", "tcp_tw_reuse=2 on the loopback interface", "net.ipv4.tcp_tw_reuse=2, to 127.0.0.1", proof.Works, proof.Exactly("failed", 0))), Seconds: 3, Run: takeOverOnLoopback},
		{Arm: againOverIPv6(turning("tcp_tw_reuse", remedy("ipv6", "tcp_tw_reuse=1 over IPv6: the key of net.ipv4 governs both", "net.ipv4.tcp_tw_reuse=1, to an IPv6 address", proof.Works, proof.Exactly("failed", 0), proof.Exactly("taken_over", 100)))), Seconds: 3, Run: overIPv6(takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}))},
		{Arm: turning("tcp_tw_reuse", observe("ipv6-loopback", "tcp_tw_reuse=2 to ::1", "net.ipv4.tcp_tw_reuse=2, to ::1", proof.Works, proof.Exactly("failed", 0))), Seconds: 3, Run: overIPv6(takeOverOnLoopback)},
		{Arm: why(turning("tcp_tw_reuse", observe("no-time-stamps", "tcp_tw_reuse=1 without time stamps", "net.ipv4.tcp_tw_reuse=1, tcp_timestamps=0", proof.NoEffect, proof.Exactly("taken_over", 0))), "Nothing would tell segments of the old connection from those of the new one."), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}, setting{atClient, "net.ipv4.tcp_timestamps", "0"})},
		{Arm: turning("tcp_tw_reuse", observe("before-the-delay", "tcp_tw_reuse=1 before its delay is over", "net.ipv4.tcp_tw_reuse=1, tcp_tw_reuse_delay=60000", proof.NoEffect, proof.Exactly("taken_over", 0))), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}, setting{atClient, "net.ipv4.tcp_tw_reuse_delay", "60000"})},
		{Arm: turning("tcp_tw_reuse", folklore("at-the-service", "tcp_tw_reuse at the service", "net.ipv4.tcp_tw_reuse=1 on the other host", proof.NoEffect)), Seconds: 3, Run: takeOver(afterDelay, setting{atClient, "net.ipv4.tcp_tw_reuse", "0"}, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
	},
}
