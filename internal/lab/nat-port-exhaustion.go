package lab

import (
	"context"
	"net/netip"

	"linger/internal/proof"
)

var natPortExhaustion = Scenario{
	Slug:  "nat-port-exhaustion",
	Title: "a source NAT has 32 ports, and its client opens more connections than that",
	Cure:  "the NAT has all ports",
	Size:  32,
	build: func(ctx context.Context, b *Built, o Options) error {
		own, second := b.client.Addr(o.IPv6), second(b.client.Addr(o.IPv6))
		if err := b.client.addAddress(second); err != nil {
			return err
		}
		rule := translation{from: second, to: own, low: 50000, high: 50031}
		if o.Cured {
			rule.low, rule.high = 1024, 65535
		}
		if err := b.client.translate(rule); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.client}
		// They stay open: a port of a closed connection is given away at once (seen on
		// kernel 6.18; older ones keep it for 120 s).
		dial := DialSpec{To: []netip.AddrPort{p.service}, From: []netip.Addr{second}, Count: o.Size, PatienceMS: 50}
		if _, err := p.client.Hold(ctx, dial); err != nil {
			return err
		}
		dial.Count, dial.Rate, dial.Batch = 0, 15, 1
		return p.client.Begin(ctx, dial)
	},
}

// translated opens 64 connections through a masquerade and counts those that fail.
func translated(rule translation, addresses int, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		own, inside := t.addr(s.client), second(t.addr(s.client))
		if err := s.client.addAddress(inside); err != nil {
			return err
		}
		rule.from, rule.to = inside, own
		if err := s.client.translate(rule); err != nil {
			return err
		}
		dial := DialSpec{To: []netip.AddrPort{s.service}, From: []netip.Addr{inside}, Count: 64 / addresses, PatienceMS: 150}
		done, err := s.parties.client.Hold(ctx, dial)
		if err != nil {
			return err
		}
		if addresses > 1 {
			// The other half to another address of the service: ports are counted for each.
			other := second(t.addr(s.server))
			if err := s.server.addAddress(other); err != nil {
				return err
			}
			dial.To = []netip.AddrPort{netip.AddrPortFrom(other, servicePort)}
			if _, err := s.parties.server.Serve(ctx, ServeSpec{Endpoints: dial.To, Close: CloseSecond}); err != nil {
				return err
			}
			more, err := s.parties.client.Hold(ctx, dial)
			if err != nil {
				return err
			}
			done.Opened, done.Failed, done.NoPort = done.Opened+more.Opened, done.Failed+more.Failed, done.NoPort+more.NoPort
			for errno, count := range more.Errnos {
				if done.Errnos == nil {
					done.Errnos = map[string]int{}
				}
				done.Errnos[errno] += count
			}
		}
		t.record(done)
		return nil
	}
}

var natPortExhaustionProof = Experiment{
	Name: "nat-port-exhaustion", Problem: "nat-port-exhaustion",
	Title:      "A source NAT runs out of ports",
	Question:   "Which knob gives a masquerade more connections?",
	Setup:      "a real source NAT (nftables) with 32 ports; 64 connections to one service, kept open",
	Load:       Waits,
	Quantities: []proof.Quantity{failures, timedOut, succeeded},
	Arms: []Arm{
		{Arm: base("32 ports", proof.Exactly("failed", 32)), Seconds: 6, Run: translated(translation{low: 50000, high: 50031}, 1)},
		{Arm: remedy("more-ports", "All ports", "snat to ADDRESS:1024-65535", proof.Works, proof.Exactly("failed", 0)), Seconds: 1, Run: translated(translation{low: 1024, high: 65535}, 1)},
		{Arm: remedy("second-destination", "A second address of the service", "two addresses, in turn", proof.Works, proof.Exactly("failed", 0)), Seconds: 1, Run: translated(translation{low: 50000, high: 50031}, 2)},
		{Arm: turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at the NAT", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), Seconds: 6, Run: translated(translation{low: 50000, high: 50031}, 1, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"})},
		{Arm: turning("ip_local_port_range", folklore("wider-range", "A wider ip_local_port_range at the NAT", "net.ipv4.ip_local_port_range=\"1024 65535\"", proof.NoEffect)), Seconds: 6, Run: translated(translation{low: 50000, high: 50031}, 1, setting{atClient, "net.ipv4.ip_local_port_range", "1024 65535"})},
	},
}
