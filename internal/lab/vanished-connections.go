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
		{Arm: remedy("keep-alive", "Keep-alive below the firewall's time-out", "setsockopt(SO_KEEPALIVE), TCP_KEEPIDLE 1 s", proof.Works, proof.Exactly("dead", 0)), Seconds: 5, Run: idled(1, 2)},
		{Arm: remedy("longer", "A longer time-out of the firewall", "net.netfilter.nf_conntrack_tcp_timeout_established=600", proof.Works, proof.Exactly("dead", 0)), Seconds: 5, Run: idled(0, 600)},
		{Arm: folklore("keepalive-time", "tcp_keepalive_time alone", "net.ipv4.tcp_keepalive_time=1, without SO_KEEPALIVE", proof.NoEffect), Seconds: 7, Run: idled(0, 2, setting{atClient, "net.ipv4.tcp_keepalive_time", "1"}, setting{atServer, "net.ipv4.tcp_keepalive_time", "1"})},
		{Arm: folklore("fin-timeout", "A higher tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=120", proof.NoEffect), Seconds: 7, Run: idled(0, 2, setting{atServer, "net.ipv4.tcp_fin_timeout", "120"})},
	},
}
