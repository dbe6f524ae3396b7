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
func bindChurn(dial DialSpec, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		set := append([]setting{{atClient, "net.ipv4.ip_local_port_range", "40000 40199"}}, set...)
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		other := serviceOf(s.server, servicePort+1)
		if _, err := s.parties.server.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{other}, Close: CloseSecond}); err != nil {
			return err
		}
		dial.To, dial.From, dial.Count = []netip.AddrPort{s.service, other}, []netip.Addr{s.client.IPv4}, 300
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
	Title:    "A client binds its source address before it connects",
	Question: "Whose ports run out when bind() chooses them, and what gives them back?",
	Setup:    "200 source ports, two services, 300 connections that the client closes first",
	// Late resets free a port now and then (RFC 1337).
	Quantities: []proof.Quantity{{
		Name: "failed", Title: failures.Title, Unit: failures.Unit, Better: proof.Less, Margin: proof.Margin{Absolute: 25},
	}, succeeded},
	Arms: []Arm{
		{Arm: base("bind(address, 0), then connect()", proof.Between("failed", 60, 100)), Seconds: 1, Run: bindChurn(DialSpec{BindPort: true})},
		{
			Arm:     remedy("no-port", "Leave the port to connect()", "setsockopt(IP_BIND_ADDRESS_NO_PORT)", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 1, Run: bindChurn(DialSpec{}),
		},
		{
			Arm:     remedy("autobind-reuse", "Let bind() take TIME_WAIT ports too", "net.ipv4.ip_autobind_reuse=1 and SO_REUSEADDR", proof.Works),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true, ReuseAddress: true}, setting{atClient, "net.ipv4.ip_autobind_reuse", "1"}),
		},
		{
			Arm:     folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}),
		},
		{
			Arm:     folklore("reuseaddr", "SO_REUSEADDR alone", "setsockopt(SO_REUSEADDR)", proof.NoEffect),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true, ReuseAddress: true}),
		},
		{
			Arm:     folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect),
			Seconds: 1, Run: bindChurn(DialSpec{BindPort: true}, setting{atClient, "net.ipv4.tcp_fin_timeout", "5"}),
		},
	},
}
