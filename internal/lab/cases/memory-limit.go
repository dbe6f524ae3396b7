package cases

import (
	"context"
	"net/netip"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// outgrown has a service take 64 KiB for each of 1,000 requests, in a control group that
// may have so many bytes, and records how many requests are refused when the kernel has
// killed it.
func outgrown(limit, keep int, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		const requests = 1000
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseFirst, KeepBytes: keep}, set...)
		if err != nil {
			return err
		}
		group, err := controlGroupOf(t, "memory", s.Server)
		if err != nil {
			return err
		}
		if err := group.LimitMemory(limit); err != nil {
			return err
		}
		done, err := s.Client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: requests, Batch: 1,
			PeerCloses: true})
		if err != nil {
			return err
		}
		t.RecordDialed(done)
		killed, err := group.Killed()
		if err != nil {
			return err
		}
		t.Record("killed", killed)
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait, map[string]*stage.Node{"server_time_wait": s.ServerNode})
	}
}

const mebibyte = 1 << 20

var memoryLimitProof = lab.Experiment{
	Name: "memory-limit", Problem: "resource-pressure",
	Title:    "A service outgrows the memory that it may have",
	Question: "A service with TIME_WAIT sockets is killed for want of memory. Would fewer of them save it?",
	Setup: "1,000 requests, one after the other, to a service that takes 64 KiB for each and is kept to 32 MiB by a control " +
		"group; the kernel kills it there",
	Quantities: []proof.Quantity{
		{Name: "failed", Title: "requests that failed", Unit: "requests", Better: proof.Less, Margin: proof.Margin{Absolute: 100}},
		lab.Succeeded,
		{Name: "killed", Title: "services killed for want of memory (oom_kill)", Unit: "processes"}, lab.ServerTimeWait,
	},
	Arms: []lab.Arm{
		{
			Arm:     base("32 MiB, of 64 that it takes", proof.Exactly("killed", 1), proof.Between("failed", 490, 750)),
			Seconds: 2, Run: outgrown(32*mebibyte, 64<<10),
		},
		{
			Arm: remedy("limit", "A limit above what it takes", "memory.max=256M", proof.Works, proof.Exactly("killed", 0),
				proof.Exactly("failed", 0)),
			Seconds: 2, Run: outgrown(256*mebibyte, 64<<10),
		},
		{
			Arm: remedy("frugal", "A service that takes less, and has as many TIME_WAIT", "4 KiB for each request",
				proof.Works, proof.Exactly("killed", 0), proof.Exactly("server_time_wait", 1000)),
			Seconds: 2, Run: outgrown(32*mebibyte, 4<<10),
		},
		{
			Arm: turning("tcp_max_tw_buckets", folklore("max-tw-buckets", "Almost no TIME_WAIT", "net.ipv4.tcp_max_tw_buckets=10", proof.NoEffect,
				proof.Exactly("killed", 1))),
			Seconds: 2, Run: outgrown(32*mebibyte, 64<<10, Buckets("10")),
		},
	},
}
