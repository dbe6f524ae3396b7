package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
)

var vanishedConnections = Case{
	Scenario: &Scenario{
		Slug:  "vanished-connections",
		Title: "a service ends each connection by a reset",
		Cure:  "the service ends them by a FIN",
		Make:  makeVanishedConnections,
		Draw:  Draw{OneHost: true},
	},
	Experiments: []lab.Experiment{VanishedConnectionsProof, peerResetsProof},
}

func makeVanishedConnections(ctx context.Context, b *Built, o Options) error {
	closing := stage.CloseByReset
	if o.Cured {
		closing = stage.CloseSecond
	}
	p, err := b.start(ctx, o, closing)
	if err != nil {
		return err
	}
	b.Expect = Expectation{Node: b.ServerNode}
	return p.Client.Begin(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Rate: 15, Batch: 1})
}

// Idled holds 20 connections through a firewall that forgets them after 2 s, leaves
// them idle for 4 s, and counts those that are dead then.
func Idled(keepAlive int, forgetAfter int, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		if err := s.ServerNode.RefuseUnknown(nftables.ChainHookInput); err != nil {
			return err
		}
		if err := s.ServerNode.ForgetIdle(forgetAfter); err != nil {
			return err
		}
		done, err := s.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 20, KeepAliveSeconds: keepAlive})
		if err != nil {
			return err
		}
		if done.Opened != 20 {
			return fmt.Errorf("%d of 20 connections were opened: %s", done.Opened, done.FirstFailure)
		}
		stage.Sleep(ctx, 4*time.Second)
		probed, err := s.Client.Probe(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		t.Record("dead", float64(probed.Failed))
		return nil
	}
}

var VanishedConnectionsProof = lab.Experiment{
	Name: "vanished-connections", Problem: "vanished-connections",
	Title:    "A firewall forgets idle connections",
	Question: "Connections look ESTABLISHED and are dead. What keeps them alive?",
	Setup:    "20 connections, idle for 4 s, through a real firewall (nftables, conntrack) that forgets after 2 s",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "dead", Title: "connections that no longer answer", Unit: "connections", Better: proof.Less},
	},
	Arms: []lab.Arm{
		{Arm: base("no keep-alive", proof.Exactly("dead", 20)), Seconds: 7, Run: Idled(0, 2)},
		{
			Arm: turning("SO_KEEPALIVE", remedy("keep-alive", "Keep-alive below the firewall's time-out",
				"setsockopt(SO_KEEPALIVE), TCP_KEEPIDLE 1 s", proof.Works, proof.Exactly("dead", 0))),
			Seconds: 5, Run: Idled(1, 2),
		},
		{
			Arm: remedy("longer", "A longer time-out of the firewall",
				"net.netfilter.nf_conntrack_tcp_timeout_established=600", proof.Works, proof.Exactly("dead", 0)),
			Seconds: 5, Run: Idled(0, 600),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect,
				proof.Exactly("dead", 20)),
			Seconds: 7, Run: lab.OverIPv6(Idled(0, 2)),
		},
		{
			Arm: turning("tcp_keepalive_time", folklore("keepalive-time", "tcp_keepalive_time alone",
				"net.ipv4.tcp_keepalive_time=1, without SO_KEEPALIVE", proof.NoEffect)),
			Seconds: 7, Run: Idled(0, 2, lab.AtClient(setting.KeepaliveTime, "1"),
				lab.AtServer(setting.KeepaliveTime, "1")),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A higher tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=120", proof.NoEffect)),
			Seconds: 7, Run: Idled(0, 2, lab.AtServer(setting.FinTimeout, "120")),
		},
	},
}

// pooled has a client keep 20 connections, leaves them idle for 4 s or asks on each every
// second, and then counts the requests that fail on them.
func pooled(serve stage.ServeSpec, dial stage.DialSpec, busy, again bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		serve, dial := serve, dial // each run its own
		serve.Close = stage.CloseSecond
		s, err := t.Scene(ctx, serve, set...)
		if err != nil {
			return err
		}
		dial.To, dial.Count = []netip.AddrPort{s.Service}, 20
		done, err := s.Client.Hold(ctx, dial)
		if err == nil && done.Opened != 20 {
			err = fmt.Errorf("%d of 20 connections were opened: %s", done.Opened, done.FirstFailure)
		}
		for i := 0; i < 4 && err == nil; i++ {
			if stage.Sleep(ctx, time.Second); busy {
				err = s.Client.Talk(ctx)
			}
		}
		if err != nil {
			return err
		}
		ask := s.Client.Probe
		if again {
			ask = s.Client.ProbeAgain
		}
		asked, err := ask(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		resets, err := s.ServerNode.Counter("TcpOutRsts")
		if err != nil {
			return err
		}
		t.Record("failed", float64(asked.Failed))
		t.Record("resets", resets)
		return nil
	}
}

// impatient is a service that resets what is idle for 2.5 s.
var impatient = stage.ServeSpec{IdleMS: 2500}

var peerResetsProof = lab.Experiment{
	Name: "peer-resets", Problem: "vanished-connections",
	Title:    "A peer resets connections that are idle",
	Question: "Requests on pooled connections fail with ECONNRESET. What helps?",
	Setup: "20 connections of a pool, idle for 4 s; the service, like many a load balancer, resets what is idle for 2.5 s; then " +
		"a request on each",
	Load: lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "failed", Title: "requests that failed", Unit: "requests", Better: proof.Less},
		{Name: "resets", Title: "resets that the service sent", Unit: "segments"},
	},
	Arms: []lab.Arm{
		{
			Arm:     base("the service resets after 2.5 s", proof.Exactly("failed", 20), proof.Exactly("resets", 20)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, false, false),
		},
		{
			Arm: remedy("again", "The client tries once more, on a new connection", "a retry of what can be repeated",
				proof.Works, proof.Exactly("failed", 0)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, false, true),
		},
		{
			Arm: remedy("in-use", "The client asks something every second",
				"a ping of the application, below the peer's time-out", proof.Works, proof.Exactly("failed", 0),
				proof.Exactly("resets", 0)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, true, false),
		},
		{
			Arm: remedy("longer", "The service waits longer than the client keeps its pool",
				"a time-out of 60 s at the service", proof.Works, proof.Exactly("failed", 0), proof.Exactly("resets", 0)),
			Seconds: 5, Run: pooled(stage.ServeSpec{IdleMS: 60_000}, stage.DialSpec{}, false, false),
		},
		{
			Arm: observe("in-order", "The service closes them in order", "FIN in place of RST", proof.NoEffect,
				proof.Exactly("failed", 20)),
			Seconds: 5, Run: pooled(stage.ServeSpec{IdleMS: 2500, IdleFIN: true}, stage.DialSpec{}, false, false),
		},
		{
			Arm: why(turning("SO_KEEPALIVE", folklore("keep-alive", "TCP keep-alive every second", "setsockopt(SO_KEEPALIVE), TCP_KEEPIDLE 1 s",
				proof.NoEffect, proof.Exactly("failed", 20))),
				"The kernel answers the probes by itself, and the program that counts idle seconds does not see them."),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{KeepAliveSeconds: 1}, false, false),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A higher tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=120", proof.NoEffect)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, false, false, lab.AtClient(setting.FinTimeout, "120"),
				lab.AtServer(setting.FinTimeout, "120")),
		},
		{
			Arm:     turning("tcp_retries2", folklore("retries2", "More TCP retransmissions", "net.ipv4.tcp_retries2=30", proof.NoEffect)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, false, false, lab.AtClient(setting.Retries2, "30"),
				lab.AtServer(setting.Retries2, "30")),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 5, Run: pooled(impatient, stage.DialSpec{}, false, false, reuse),
		},
	},
}
