package lab

import (
	"context"
	"fmt"
	"net/netip"

	"linger/internal/proof"
)

var bindBeforeConnect = Scenario{
	Slug:  "bind-before-connect",
	Title: "a client binds its source address before each of its connections to two services",
	Cure:  "it leaves the port to connect() (IP_BIND_ADDRESS_NO_PORT)",
	Size:  900,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := b.client.Set("net.ipv4.ip_local_port_range", "40000 41999"); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		other := netip.AddrPortFrom(p.service.Addr(), servicePort+1)
		if _, err := p.server.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{other}, Close: CloseSecond}); err != nil {
			return err
		}
		// One connection more to the first service: it is the larger one, and named.
		done, err := p.client.Hold(ctx, DialSpec{
			To: []netip.AddrPort{p.service, other}, From: []netip.Addr{b.client.Addr(o.IPv6)}, BindPort: !o.Cured, Count: o.Size + 1,
		})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		return err
	},
}

// bindChurn is a client's 300 connections to two services through 200 source ports,
// each of which it closes first.
func bindChurn(dial DialSpec, sources, services int, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		set := append([]setting{{atClient, "net.ipv4.ip_local_port_range", "40000 40199"}}, set...)
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		var others []netip.AddrPort
		for i := range services - 1 {
			others = append(others, t.service(s.server, servicePort+1+uint16(i)))
		}
		if _, err := s.parties.server.Serve(ctx, ServeSpec{Endpoints: others, Close: CloseSecond}); err != nil {
			return err
		}
		dial.To, dial.From, dial.Count = append(others, s.service), []netip.Addr{t.addr(s.client)}, 300
		if sources > 1 {
			more := second(t.addr(s.client))
			if err := s.client.addAddress(more); err != nil {
				return err
			}
			dial.From = append(dial.From, more)
		}
		done, err := s.parties.client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		t.record(done)
		return nil
	}
}

var bindBeforeConnectProof = Experiment{
	Name: "bind-before-connect", Problem: "bind-before-connect",
	Title:      "A client binds its source address before it connects",
	Question:   "Whose ports run out when bind() chooses them, and what gives them back?",
	Setup:      "200 source ports, two services, 300 connections that the client closes first",
	Quantities: []proof.Quantity{failures, bindInUse, noPort, succeeded},
	Arms: []Arm{
		{Arm: base("bind(address, 0), then connect()", proof.Exactly("failed", 100), proof.Exactly("EADDRINUSE", 100)), Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, 1, 2)},
		{
			Arm:     remedy("no-port", "Leave the port to connect()", "setsockopt(IP_BIND_ADDRESS_NO_PORT)", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: bindChurn(DialSpec{}, 1, 2),
		},
		{
			Arm:     turning("ip_autobind_reuse", remedy("autobind-reuse", "Let bind() take TIME_WAIT ports too", "net.ipv4.ip_autobind_reuse=1 and SO_REUSEADDR", proof.Works)),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true, ReuseAddress: true}, 1, 2, setting{atClient, "net.ipv4.ip_autobind_reuse", "1"}),
		},
		{
			Arm:     remedy("second-source", "A second source address", "bind(address, 0) to one of two, in turn", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, 2, 2),
		},
		{
			Arm:     observe("more-services", "Six services in place of two", "bind() knows no destination", proof.NoEffect, proof.Exactly("failed", 100)),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, 1, 6),
		},
		{
			Arm:     observe("ipv6", "The same over IPv6", "IPv6 addresses of both", proof.NoEffect, proof.Exactly("failed", 100)),
			Seconds: 1, Run: overIPv6(bindChurn(DialSpec{BindPort: true}, 1, 2)),
		},
		{
			Arm:     againOverIPv6(remedy("ipv6-no-port", "Over IPv6: leave the port to connect()", "setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), on an IPv6 socket too", proof.Works, proof.Exactly("failed", 0))),
			Seconds: 1, Run: overIPv6(bindChurn(DialSpec{}, 1, 2)),
		},
		{
			Arm:     why(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), "bind() has chosen the port before connect() could take any over."),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, 1, 2, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}),
		},
		{
			Arm:     turning("SO_REUSEADDR", folklore("reuseaddr", "SO_REUSEADDR alone", "setsockopt(SO_REUSEADDR)", proof.NoEffect)),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true, ReuseAddress: true}, 1, 2),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, 1, 2, setting{atClient, "net.ipv4.tcp_fin_timeout", "5"}),
		},
	},
}
