package cases

import (
	"context"
	"fmt"
	"net/netip"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
)

var bindBeforeConnect = Case{
	Scenario: &Scenario{
		Slug:  "bind-before-connect",
		Title: "a client binds its source address before each of its connections to two services",
		Cure:  "it leaves the port to connect() (IP_BIND_ADDRESS_NO_PORT)",
		Size:  900,
		Make:  makeBindBeforeConnect,
		Draw: Draw{
			Sizes: [2]int{700, 950}, OneHost: true, Sharable: true,
			Ports: func(o Options) int { return bindRange - o.Size },
		},
	},
	Experiments: []lab.Experiment{bindBeforeConnectProof},
}

// bindRange is how many source ports its client has.
const bindRange = 2000

func makeBindBeforeConnect(ctx context.Context, b *Built, o Options) error {
	if err := b.ClientNode.NarrowRange(bindRange); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	other := netip.AddrPortFrom(p.Service.Addr(), stage.ServicePort+1)
	if _, err := p.Server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{other}, Close: stage.CloseSecond}); err != nil {
		return err
	}
	// One connection more to the first service: it is the larger one, and named.
	done, err := p.Client.Hold(ctx, stage.DialSpec{
		To: []netip.AddrPort{p.Service, other}, From: []netip.Addr{b.ClientNode.Addr(o.IPv6)}, BindPort: !o.Cured,
		Count: o.Size + 1,
	})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
	}
	return err
}

// bindChurn is a client's 300 connections to two services through 200 source ports,
// each of which it closes first.
func bindChurn(dial stage.DialSpec, sources, services int, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		set := append([]lab.Sysctl{lab.AtClient(setting.LocalPortRange, "40000 40199")}, set...)
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		var others []netip.AddrPort
		for i := range services - 1 {
			others = append(others, t.Service(s.ServerNode, stage.ServicePort+1+uint16(i)))
		}
		if _, err := s.Server.Serve(ctx, stage.ServeSpec{Endpoints: others, Close: stage.CloseSecond}); err != nil {
			return err
		}
		dial := dial // each run its own
		dial.To, dial.From, dial.Count = append(others, s.Service), []netip.Addr{t.Addr(s.ClientNode)}, 300
		if sources > 1 {
			more, err := second(s.ClientNode, t.Addr(s.ClientNode))
			if err != nil {
				return err
			}
			dial.From = append(dial.From, more)
		}
		done, err := s.Client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		t.RecordDialed(done)
		return nil
	}
}

var bindBeforeConnectProof = lab.Experiment{
	Name: "bind-before-connect", Problem: "bind-before-connect",
	Title:      "A client binds its source address before it connects",
	Question:   "Whose ports run out when bind() chooses them, and what gives them back?",
	Setup:      "200 source ports, two services, 300 connections that the client closes first",
	Quantities: []proof.Quantity{lab.Failures, lab.BindInUse, lab.NoPort, lab.Succeeded},
	Arms: []lab.Arm{
		{
			Arm:     base("bind(address, 0), then connect()", proof.Exactly("failed", 100), proof.Exactly("EADDRINUSE", 100)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true}, 1, 2),
		},
		{
			Arm: remedy("no-port", "Leave the port to connect()", "setsockopt(IP_BIND_ADDRESS_NO_PORT)", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{}, 1, 2),
		},
		{
			Arm: turning("ip_autobind_reuse", remedy("autobind-reuse", "Let bind() take TIME_WAIT ports too",
				"net.ipv4.ip_autobind_reuse=1 and SO_REUSEADDR", proof.Works)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true, ReuseAddress: true}, 1, 2,
				lab.AtClient(setting.AutobindReuse, "1")),
		},
		{
			Arm: remedy("second-source", "A second source address", "bind(address, 0) to one of two, in turn", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true}, 2, 2),
		},
		{
			Arm: observe("more-services", "Six services in place of two", "bind() knows no destination", proof.NoEffect,
				proof.Exactly("failed", 100)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true}, 1, 6),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "IPv6 addresses of both", proof.NoEffect,
				proof.Exactly("failed", 100)),
			Seconds: 1, Run: lab.OverIPv6(bindChurn(stage.DialSpec{BindPort: true}, 1, 2)),
		},
		{
			Arm: againOverIPv6(remedy("ipv6-no-port", "Over IPv6: leave the port to connect()",
				"setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), on an IPv6 socket too", proof.Works,
				proof.Exactly("failed", 0))),
			Seconds: 1, Run: lab.OverIPv6(bindChurn(stage.DialSpec{}, 1, 2)),
		},
		{
			Arm: why(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
				"bind() has chosen the port before connect() could take any over."),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true}, 1, 2, lab.AtClient(setting.TWReuse, "1")),
		},
		{
			Arm:     turning("SO_REUSEADDR", folklore("reuseaddr", "SO_REUSEADDR alone", "setsockopt(SO_REUSEADDR)", proof.NoEffect)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true, ReuseAddress: true}, 1, 2),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 1, Run: bindChurn(stage.DialSpec{BindPort: true}, 1, 2, lab.AtClient(setting.FinTimeout, "5")),
		},
	},
}
