package lab

import (
	"context"
	"net/netip"
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
