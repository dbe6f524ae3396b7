package lab

import (
	"context"
	"net/netip"
)

var synOnTimeWait = Scenario{
	Slug:  "syn-on-time-wait",
	Title: "two hosts behind a NAT that forgets a closed connection after a second use the same ports",
	Cure:  "the NAT remembers it for longer than the service's 60 s",
	build: func(ctx context.Context, b *Built, o Options) error {
		// The second host is a second address of the client's node, translated to the
		// first: the clock of its time stamps is another, as it is made of the addresses
		// before translation (net/core/secure_seq.c).
		own, second := b.client.Addr(o.IPv6), second(b.client.Addr(o.IPv6))
		if err := b.client.addAddress(second); err != nil {
			return err
		}
		if err := b.client.translate(translation{from: second, to: own}); err != nil {
			return err
		}
		if err := b.client.Set("net.ipv4.ip_local_port_range", "40000 40255"); err != nil {
			return err
		}
		if !o.Cured {
			for _, state := range []string{"time_wait", "close", "last_ack", "close_wait", "fin_wait"} {
				if err := b.client.Set("net.netfilter.nf_conntrack_tcp_timeout_"+state, "1"); err != nil {
					return err
				}
			}
		}
		p, err := b.start(ctx, o, CloseFirst)
		if err != nil {
			return err
		}
		b.Expect = b.expectAcceptor(p)
		dial := DialSpec{
			To: []netip.AddrPort{p.service}, From: []netip.Addr{own, second}, PeerCloses: true, Batch: 1,
			// A connect that is refused holds up the next ones for so long: several are to fall into each second.
			PatienceMS: 100,
		}
		// Every port that connect() prefers once, so that each has its TIME_WAIT at the service.
		dial.Count, dial.Rate = 256, 200
		if _, err := p.client.Churn(ctx, dial); err != nil {
			return err
		}
		dial.Count, dial.Rate = 0, 40
		return p.client.Begin(ctx, dial)
	},
}

// second is another address of a node's link.
func second(addr netip.Addr) netip.Addr {
	bytes := addr.AsSlice()
	bytes[len(bytes)-1] += 100
	other, _ := netip.AddrFromSlice(bytes)
	return other
}
