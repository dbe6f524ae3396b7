package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"linger/internal/proof"
)

var vanishedConnections = Scenario{
	Slug:  "vanished-connections",
	Title: "a service ends each connection by a reset",
	Cure:  "the service ends them by a FIN",
	build: func(ctx context.Context, b *Built, o Options) error {
		closing := CloseByReset
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.server}
		return p.client.Begin(ctx, DialSpec{To: []netip.AddrPort{p.service}, Rate: 15, Batch: 1})
	},
}

// idled holds 20 connections through a firewall that forgets them after 2 s, leaves
// them idle for 4 s, and counts those that are dead then.
func idled(keepAlive int, forgetAfter int, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		if err := s.server.refuseUnknown(nftables.ChainHookInput); err != nil {
			return err
		}
		if err := s.server.forgetIdle(forgetAfter); err != nil {
			return err
		}
		done, err := s.parties.client.Hold(ctx, DialSpec{To: []netip.AddrPort{s.service}, Count: 20, KeepAliveSeconds: keepAlive})
		if err != nil {
			return err
		}
		if done.Opened != 20 {
			return fmt.Errorf("%d of 20 connections were opened: %s", done.Opened, done.FirstFailure)
		}
		sleep(ctx, 4*time.Second)
		probed, err := s.parties.client.Probe(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		t.Record("dead", float64(probed.Failed))
		return nil
	}
}

var vanishedConnectionsProof = Experiment{
	Name: "vanished-connections", Problem: "vanished-connections",
	Title:    "A firewall forgets idle connections",
	Question: "Connections look ESTABLISHED and are dead. What keeps them alive?",
	Setup:    "20 connections, idle for 4 s, through a real firewall (nftables, conntrack) that forgets after 2 s",
	Load:     Waits,
	Quantities: []proof.Quantity{
		{Name: "dead", Title: "connections that no longer answer", Unit: "connections", Better: proof.Less},
	},
	Arms: []Arm{
		{Arm: base("no keep-alive", proof.Exactly("dead", 20)), Seconds: 7, Run: idled(0, 2)},
		{Arm: turning("SO_KEEPALIVE", remedy("keep-alive", "Keep-alive below the firewall's time-out", "setsockopt(SO_KEEPALIVE), TCP_KEEPIDLE 1 s", proof.Works, proof.Exactly("dead", 0))), Seconds: 5, Run: idled(1, 2)},
		{Arm: remedy("longer", "A longer time-out of the firewall", "net.netfilter.nf_conntrack_tcp_timeout_established=600", proof.Works, proof.Exactly("dead", 0)), Seconds: 5, Run: idled(0, 600)},
		{Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect, proof.Exactly("dead", 20)), Seconds: 7, Run: overIPv6(idled(0, 2))},
		{Arm: turning("tcp_keepalive_time", folklore("keepalive-time", "tcp_keepalive_time alone", "net.ipv4.tcp_keepalive_time=1, without SO_KEEPALIVE", proof.NoEffect)), Seconds: 7, Run: idled(0, 2, setting{atClient, "net.ipv4.tcp_keepalive_time", "1"}, setting{atServer, "net.ipv4.tcp_keepalive_time", "1"})},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A higher tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=120", proof.NoEffect)), Seconds: 7, Run: idled(0, 2, setting{atServer, "net.ipv4.tcp_fin_timeout", "120"})},
	},
}

// pooled has a client keep 20 connections, leaves them idle for 4 s or asks on each every
// second, and then counts the requests that fail on them.
func pooled(serve ServeSpec, dial DialSpec, busy, again bool, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		serve.Close = CloseSecond
		s, err := t.stage(ctx, serve, set...)
		if err != nil {
			return err
		}
		dial.To, dial.Count = []netip.AddrPort{s.service}, 20
		done, err := s.parties.client.Hold(ctx, dial)
		if err == nil && done.Opened != 20 {
			err = fmt.Errorf("%d of 20 connections were opened: %s", done.Opened, done.FirstFailure)
		}
		for i := 0; i < 4 && err == nil; i++ {
			if sleep(ctx, time.Second); busy {
				err = s.parties.client.Talk(ctx)
			}
		}
		if err != nil {
			return err
		}
		ask := s.parties.client.Probe
		if again {
			ask = s.parties.client.ProbeAgain
		}
		asked, err := ask(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		resets, err := s.server.counter("TcpOutRsts")
		if err != nil {
			return err
		}
		t.Record("failed", float64(asked.Failed))
		t.Record("resets", resets)
		return nil
	}
}

// impatient is a service that resets what is idle for 2.5 s.
var impatient = ServeSpec{IdleMS: 2500}

var peerResetsProof = Experiment{
	Name: "peer-resets", Problem: "vanished-connections",
	Title:    "A peer resets connections that are idle",
	Question: "Requests on pooled connections fail with ECONNRESET. What helps?",
	Setup:    "20 connections of a pool, idle for 4 s; the service, like many a load balancer, resets what is idle for 2.5 s; then a request on each",
	Load:     Waits,
	Quantities: []proof.Quantity{
		{Name: "failed", Title: "requests that failed", Unit: "requests", Better: proof.Less},
		{Name: "resets", Title: "resets that the service sent", Unit: "segments"},
	},
	Arms: []Arm{
		{Arm: base("the service resets after 2.5 s", proof.Exactly("failed", 20), proof.Exactly("resets", 20)), Seconds: 5, Run: pooled(impatient, DialSpec{}, false, false)},
		{Arm: remedy("again", "The client tries once more, on a new connection", "a retry of what can be repeated", proof.Works, proof.Exactly("failed", 0)), Seconds: 5, Run: pooled(impatient, DialSpec{}, false, true)},
		{Arm: remedy("in-use", "The client asks something every second", "a ping of the application, below the peer's time-out", proof.Works, proof.Exactly("failed", 0), proof.Exactly("resets", 0)), Seconds: 5, Run: pooled(impatient, DialSpec{}, true, false)},
		{Arm: remedy("longer", "The service waits longer than the client keeps its pool", "a time-out of 60 s at the service", proof.Works, proof.Exactly("failed", 0), proof.Exactly("resets", 0)), Seconds: 5, Run: pooled(ServeSpec{IdleMS: 60_000}, DialSpec{}, false, false)},
		{Arm: observe("in-order", "The service closes them in order", "FIN in place of RST", proof.NoEffect, proof.Exactly("failed", 20)), Seconds: 5, Run: pooled(ServeSpec{IdleMS: 2500, IdleFIN: true}, DialSpec{}, false, false)},
		{Arm: why(turning("SO_KEEPALIVE", folklore("keep-alive", "TCP keep-alive every second", "setsockopt(SO_KEEPALIVE), TCP_KEEPIDLE 1 s", proof.NoEffect, proof.Exactly("failed", 20))), "The kernel answers the probes by itself, and the program that counts idle seconds does not see them."), Seconds: 5, Run: pooled(impatient, DialSpec{KeepAliveSeconds: 1}, false, false)},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A higher tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=120", proof.NoEffect)), Seconds: 5, Run: pooled(impatient, DialSpec{}, false, false, setting{atClient, "net.ipv4.tcp_fin_timeout", "120"}, setting{atServer, "net.ipv4.tcp_fin_timeout", "120"})},
		{Arm: turning("tcp_retries2", folklore("retries2", "More TCP retransmissions", "net.ipv4.tcp_retries2=30", proof.NoEffect)), Seconds: 5, Run: pooled(impatient, DialSpec{}, false, false, setting{atClient, "net.ipv4.tcp_retries2", "30"}, setting{atServer, "net.ipv4.tcp_retries2", "30"})},
		{Arm: turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), Seconds: 5, Run: pooled(impatient, DialSpec{}, false, false, reuse)},
	},
}
