package cases

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var connectionChurn = Case{
	Scenario: &Scenario{
		Slug:  "connection-churn",
		Title: "a service closes each connection first",
		Cure:  "the service keeps its connections alive, and its client uses them again",
		Size:  2000,
		Make:  makeConnectionChurn,
		Draw: Draw{
			Sizes: [2]int{1600, 4000}, Rate: minutely, OneHost: true, Tightens: true,
			Crowds: func(o Options) bool { return o.Tight },
		},
	},
	Experiments: []lab.Experiment{connectionChurnProof},
}

func makeConnectionChurn(ctx context.Context, b *Built, o Options) error {
	if o.Tight {
		if err := b.ServerNode.Set(setting.MaxTWBuckets, strconv.Itoa(tightFactor*o.Size)); err != nil {
			return err
		}
	}
	closing := stage.CloseFirst
	if o.Cured {
		closing = stage.CloseSecond
	}
	p, err := b.start(ctx, o, closing)
	if err != nil {
		return err
	}
	b.Expect = b.expectAcceptor(p)
	if o.Cured {
		return p.Pool(ctx, o.Size)
	}
	if err := p.BurstThenSteady(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size, PeerCloses: true},
		o.Rate); err != nil {
		return err
	}
	b.RipeAt = time.Now()
	return nil
}

// churned runs a number of requests, each on a connection of its own unless it is a
// pool's, and records where the TIME_WAIT is left.
func churned(serve stage.ServeSpec, dial stage.DialSpec, pooled bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, serve, set...)
		if err != nil {
			return err
		}
		const requests = 1000
		if pooled {
			if err := s.Pool(ctx, requests); err != nil {
				return err
			}
			t.Record("failed", 0)
		} else {
			dial := dial // each run its own
			dial.To, dial.Count = []netip.AddrPort{s.Service}, requests
			done, err := s.Client.Churn(ctx, dial)
			if err != nil {
				return err
			}
			if err := s.Server.AwaitServed(ctx, int64(done.Opened)); err != nil {
				return err
			}
			t.Record("failed", float64(done.NoPort+done.Failed))
		}
		if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode, s.ServerNode); err != nil {
			return err
		}
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait,
			map[string]*stage.Node{"client_time_wait": s.ClientNode, "server_time_wait": s.ServerNode})
	}
}

var (
	ServerCloses = stage.ServeSpec{Close: stage.CloseFirst}
	clientCloses = stage.ServeSpec{Close: stage.CloseSecond}
	untilClosed  = stage.DialSpec{PeerCloses: true}
)

var connectionChurnProof = lab.Experiment{
	Name: "connection-churn", Problem: "connection-churn",
	Title:      "A service closes each connection first",
	Question:   "What takes the TIME_WAIT away from a service?",
	Setup:      "1,000 requests, each on a connection that the service closes first",
	Quantities: []proof.Quantity{less(lab.ServerTimeWait), lab.ClientTimeWait, lab.Failures},
	Arms: []lab.Arm{
		{
			Arm: base("a connection for each request, closed by the service", proof.Exactly("server_time_wait", 1000),
				proof.Exactly("client_time_wait", 0)),
			Seconds: 2, Run: churned(ServerCloses, untilClosed, false),
		},
		{
			Arm: remedy("keep-alive", "Keep connections alive, and use them again", "a pool of 20 connections", proof.Works,
				proof.Exactly("server_time_wait", 0), proof.Exactly("client_time_wait", 0)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, true),
		},
		{
			Arm: remedy("client-closes", "Let the client close first",
				"Connection: close is sent by the client, which hangs up", proof.Works,
				proof.Exactly("server_time_wait", 0), proof.Exactly("client_time_wait", 1000)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, false),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect,
				proof.Exactly("server_time_wait", 1000)),
			Seconds: 2, Run: lab.OverIPv6(churned(ServerCloses, untilClosed, false)),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 2, Run: churned(ServerCloses, untilClosed, false, lab.AtServer(setting.FinTimeout, "5")),
		},
		{
			Arm: why(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at the service", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
				"It is for connect() alone: a service needs no port for each connection."),
			Seconds: 2, Run: churned(ServerCloses, untilClosed, false, lab.AtServer(setting.TWReuse, "1")),
		},
		{
			Arm: turning("ip_local_port_range", folklore("wider-range", "A wider range of ports at the service",
				setting.LocalPortRange+"=\"1024 65535\"", proof.NoEffect)),
			Seconds: 2, Run: churned(ServerCloses, untilClosed, false,
				lab.AtServer(setting.LocalPortRange, "1024 65535")),
		},
	},
}
