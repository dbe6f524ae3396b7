package cases

import (
	"cmp"
	"context"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var timeWaitOverflow = Case{
	Scenario: &Scenario{
		Slug:  "time-wait-overflow",
		Title: "a service closes more connections than tcp_max_tw_buckets allows to wait",
		Cure:  "tcp_max_tw_buckets is sixteen times as large",
		Size:  1000,
		Make:  makeTimeWaitOverflow,
		Draw: Draw{
			Sizes: [2]int{400, 3000}, Rate: anyRate, OneHost: true,
			Crowds: func(Options) bool { return true },
		},
		Consequences: []diagnose.Slug{"connection-churn"},
	},
	Experiments: []lab.Experiment{TimeWaitOverflowProof},
}

func makeTimeWaitOverflow(ctx context.Context, b *Built, o Options) error {
	buckets := o.Size
	if o.Cured {
		buckets *= 16
	}
	if err := b.ServerNode.Set(setting.MaxTWBuckets, strconv.Itoa(buckets)); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseFirst)
	if err != nil {
		return err
	}
	// The limit is the namespace's: no connection is to blame alone.
	b.Expect = Expectation{Node: b.ServerNode}
	b.RipeAt = time.Now()
	return p.BurstThenSteady(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size + o.Size/5, PeerCloses: true}, o.Rate)
}

// Overflown closes 400 connections at a service and records how many were not allowed
// to wait.
func Overflown(serve stage.ServeSpec, dial stage.DialSpec, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, serve, set...)
		if err != nil {
			return err
		}
		dial := dial // each run its own
		dial.To, dial.Count = []netip.AddrPort{s.Service}, cmp.Or(dial.Count, 400)
		done, err := s.Client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		if err := s.Server.AwaitServed(ctx, int64(done.Opened)); err != nil {
			return err
		}
		if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode, s.ServerNode); err != nil {
			return err
		}
		cut, err := s.ServerNode.Counter("TcpExtTCPTimeWaitOverflow")
		if err != nil {
			return err
		}
		t.Record("cut_short", cut)
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait, map[string]*stage.Node{"server_time_wait": s.ServerNode})
	}
}

// passing is by how many TIME_WAIT may exceed tcp_max_tw_buckets: the kernel compares and then counts, so that
// each CPU may pass together with the last one (inet_twsk_alloc of net/ipv4/inet_timewait_sock.c).
var passing = float64(runtime.NumCPU())

// upTo is n TIME_WAIT, of a limit of n.
func upTo(n float64) proof.Bound { return proof.Between("server_time_wait", n, n+passing) }

// cutShort is n connections without their TIME_WAIT, beyond a limit.
func cutShort(n float64) proof.Bound { return proof.Between("cut_short", n-passing, n) }

func Buckets(n string) lab.Sysctl { return lab.AtServer(setting.MaxTWBuckets, n) }

var TimeWaitOverflowProof = lab.Experiment{
	Name: "time-wait-overflow", Problem: "time-wait-overflow",
	Title:    "tcp_max_tw_buckets is met",
	Question: "Connections lose the state that protects the next ones. What keeps it?",
	Setup:    "tcp_max_tw_buckets=200, 400 connections that the service closes first",
	Quantities: []proof.Quantity{
		{Name: "cut_short", Title: "connections without their TIME_WAIT (TCPTimeWaitOverflow)", Unit: "connections",
			Better: proof.Less, Margin: proof.Margin{Absolute: passing}},
		lab.ServerTimeWait,
	},
	Arms: []lab.Arm{
		{
			Arm:     base("a limit of 200", cutShort(200), upTo(200)),
			Seconds: 1, Run: Overflown(ServerCloses, untilClosed, Buckets("200")),
		},
		{
			Arm: turning("tcp_max_tw_buckets", remedy("raise", "A limit sixteen times as large", "net.ipv4.tcp_max_tw_buckets=3200", proof.Works,
				proof.Exactly("cut_short", 0))),
			Seconds: 1, Run: Overflown(ServerCloses, untilClosed, Buckets("3200")),
		},
		{
			Arm: remedy("client-closes", "Let the client close first", "the client hangs up", proof.Works,
				proof.Exactly("cut_short", 0)),
			Seconds: 1, Run: Overflown(clientCloses, stage.DialSpec{}, Buckets("200")),
		},
		{
			Arm: turning("tcp_max_tw_buckets", observe("ipv6", "Over IPv6: the limit counts both", "net.ipv4.tcp_max_tw_buckets=200", proof.NoEffect,
				cutShort(200))),
			Seconds: 1, Run: lab.OverIPv6(Overflown(ServerCloses, untilClosed, Buckets("200"))),
		},
		{
			Arm: why(turning("tcp_max_tw_buckets", folklore("lower", "A lower limit, to have fewer TIME_WAIT", "net.ipv4.tcp_max_tw_buckets=50",
				proof.Harmful, cutShort(350))),
				"The state does not become shorter; it is not there, for those beyond the limit."),
			Seconds: 1, Run: Overflown(ServerCloses, untilClosed, Buckets("50")),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 1, Run: Overflown(ServerCloses, untilClosed, Buckets("200"),
				lab.AtServer(setting.FinTimeout, "5")),
		},
	},
}
