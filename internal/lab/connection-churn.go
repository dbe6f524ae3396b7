package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"linger/internal/proof"
	"linger/internal/tcp"
)

var connectionChurn = Scenario{
	Slug:  "connection-churn",
	Title: "a service closes each connection first",
	Cure:  "the service keeps its connections alive, and its client uses them again",
	Size:  2000,
	build: func(ctx context.Context, b *Built, o Options) error {
		if o.Tight {
			if err := b.server.Set("net.ipv4.tcp_max_tw_buckets", strconv.Itoa(tightFactor*o.Size)); err != nil {
				return err
			}
		}
		closing := CloseFirst
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = b.expectAcceptor(p)
		if o.Cured {
			return pool(ctx, p, o.Size)
		}
		if err := burstThenSteady(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size, PeerCloses: true}); err != nil {
			return err
		}
		b.RipeAt = time.Now()
		return nil
	},
}

// churned runs a number of requests, each on a connection of its own unless it is a
// pool's, and records where the TIME_WAIT is left.
func churned(serve ServeSpec, dial DialSpec, pooled bool, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, serve, set...)
		if err != nil {
			return err
		}
		const requests = 1000
		if pooled {
			if err := pool(ctx, s.parties, requests); err != nil {
				return err
			}
			t.Record("failed", 0)
		} else {
			dial.To, dial.Count = []netip.AddrPort{s.service}, requests
			done, err := s.parties.client.Churn(ctx, dial)
			if err != nil {
				return err
			}
			if err := awaitServed(ctx, s.parties.server, int64(done.Opened)); err != nil {
				return err
			}
			t.Record("failed", float64(done.NoPort+done.Failed))
		}
		if err := settled(ctx, s.client, s.server); err != nil {
			return err
		}
		return t.recordStates(ctx, servicePort, tcp.TimeWait, map[string]*Node{"client_time_wait": s.client, "server_time_wait": s.server})
	}
}

// settled waits until no connection of the service is on its way to TIME_WAIT.
func settled(ctx context.Context, nodes ...*Node) error {
	return settledAt(ctx, servicePort, nodes...)
}

func settledAt(ctx context.Context, port uint16, nodes ...*Node) error {
	for {
		moving := 0
		for _, n := range nodes {
			some, err := n.count(ctx, port, tcp.FinWait1, tcp.FinWait2, tcp.FinWait2TimeWait, tcp.Closing, tcp.LastAck, tcp.CloseWait)
			if err != nil {
				return err
			}
			moving += some
		}
		if moving == 0 {
			return nil
		}
		sleep(ctx, 10*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d connections are not closed: %w", moving, context.Cause(ctx))
		}
	}
}

var (
	serverCloses = ServeSpec{Close: CloseFirst}
	clientCloses = ServeSpec{Close: CloseSecond}
	untilClosed  = DialSpec{PeerCloses: true}
)

var connectionChurnProof = Experiment{
	Name: "connection-churn", Problem: "connection-churn",
	Title:      "A service closes each connection first",
	Question:   "What takes the TIME_WAIT away from a service?",
	Setup:      "1,000 requests, each on a connection that the service closes first",
	Quantities: []proof.Quantity{less(serverHolds), clientHolds, failures},
	Arms: []Arm{
		{Arm: base("a connection for each request, closed by the service", proof.Exactly("server_time_wait", 1000), proof.Exactly("client_time_wait", 0)), Seconds: 2, Run: churned(serverCloses, untilClosed, false)},
		{Arm: remedy("keep-alive", "Keep connections alive, and use them again", "a pool of 20 connections", proof.Works, proof.Exactly("server_time_wait", 0), proof.Exactly("client_time_wait", 0)), Seconds: 2, Run: churned(clientCloses, DialSpec{}, true)},
		{Arm: remedy("client-closes", "Let the client close first", "Connection: close is sent by the client, which hangs up", proof.Works, proof.Exactly("server_time_wait", 0), proof.Exactly("client_time_wait", 1000)), Seconds: 2, Run: churned(clientCloses, DialSpec{}, false)},
		{Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect, proof.Exactly("server_time_wait", 1000)), Seconds: 2, Run: overIPv6(churned(serverCloses, untilClosed, false))},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)), Seconds: 2, Run: churned(serverCloses, untilClosed, false, setting{atServer, "net.ipv4.tcp_fin_timeout", "5"})},
		{Arm: why(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at the service", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), "It is for connect() alone: a service needs no port for each connection."), Seconds: 2, Run: churned(serverCloses, untilClosed, false, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
		{Arm: turning("ip_local_port_range", folklore("wider-range", "A wider range of ports at the service", "net.ipv4.ip_local_port_range=\"1024 65535\"", proof.NoEffect)), Seconds: 2, Run: churned(serverCloses, untilClosed, false, setting{atServer, "net.ipv4.ip_local_port_range", "1024 65535"})},
	},
}
