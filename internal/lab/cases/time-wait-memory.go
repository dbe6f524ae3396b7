package cases

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// chargedConnections are enough for what the kernel charges ahead, 64 pages on each CPU
// (MEMCG_CHARGE_BATCH), to be little of each.
const chargedConnections = 4000

// charged has a client open connections, and records what the control groups of the
// service and of the client are charged for each, once nothing moves. Those that a
// service leaves unread stay open.
func charged(serve stage.ServeSpec, dial stage.DialSpec, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, serve, set...)
		if err != nil {
			return err
		}
		service, err := account(t, s.Server)
		if err != nil {
			return err
		}
		client, err := account(t, s.Client)
		if err != nil {
			return err
		}
		if err := openCharged(ctx, s, dial, serve.Unread); err != nil {
			return err
		}
		if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode, s.ServerNode); err != nil {
			return err
		}
		for quantity, of := range map[string]memoryAccount{"service_bytes": service, "client_bytes": client} {
			after, err := settledMemory(ctx, of.group)
			if err != nil {
				return err
			}
			t.Record(quantity, (after-of.before)/chargedConnections)
		}
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait,
			map[string]*stage.Node{"client_time_wait": s.ClientNode, "server_time_wait": s.ServerNode})
	}
}

// openCharged opens the connections, which stay open where they are left unread.
func openCharged(ctx context.Context, s lab.Scene, dial stage.DialSpec, unread bool) error {
	open := s.Client.Churn
	if unread {
		open = s.Client.Hold
	}
	dial.To, dial.Count = []netip.AddrPort{s.Service}, chargedConnections
	done, err := open(ctx, dial)
	if err != nil {
		return err
	}
	if done.Opened != chargedConnections {
		return fmt.Errorf("%d of %d connections were opened: %s", done.Opened, chargedConnections, done.FirstFailure)
	}
	return awaitAccepted(ctx, s.Server, chargedConnections)
}

// memoryAccount is what a worker's control group was charged before a load.
type memoryAccount struct {
	group  stage.ControlGroup
	before float64 // bytes
}

// account puts a worker into a control group that counts its memory.
func account(t *lab.Trial, w *stage.Worker) (a memoryAccount, err error) {
	if a.group, err = controlGroupOf(t, "memory", w); err != nil {
		return a, err
	}
	if err := a.group.CountSockets(); err != nil {
		return a, err
	}
	a.before, err = a.group.KernelMemory()
	return a, err
}

// controlGroupOf puts a worker into a control group that ends with the trial.
func controlGroupOf(t *lab.Trial, controller string, w *stage.Worker) (stage.ControlGroup, error) {
	g, err := stage.NewControlGroup(controller, w)
	if err == nil {
		t.Defer(g.Close)
	}
	return g, err
}

// settledMemory is KernelMemory when it has not fallen for a second: what was closed is
// given back after a grace period of RCU.
func settledMemory(ctx context.Context, g stage.ControlGroup) (float64, error) {
	least, since := math.Inf(1), time.Now()
	for time.Since(since) < time.Second {
		now, err := g.KernelMemory()
		if err != nil {
			return 0, err
		}
		if now < least {
			least, since = now, time.Now()
		}
		if stage.Sleep(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	return least, nil
}

// awaitAccepted waits until a service has taken n connections.
func awaitAccepted(ctx context.Context, server *stage.Worker, n int64) error {
	for {
		served, err := server.Served(ctx)
		if err != nil || served.Accepted >= n {
			return err
		}
		stage.Sleep(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d connections were accepted: %w", served.Accepted, n, context.Cause(ctx))
		}
	}
}

var timeWaitMemoryProof = lab.Experiment{
	Name: "time-wait-memory", Problem: "resource-pressure",
	Title:    "Whose memory is a TIME_WAIT socket?",
	Question: "Does TIME_WAIT use up the memory that a container may have?",
	Setup: "4,000 connections between a service and a client, each in a memory control group of its own; what the kernel " +
		"charges the group for each connection",
	Quantities: []proof.Quantity{
		{Name: "service_bytes", Title: "memory charged to the service for each connection", Unit: "bytes", Better: proof.Less,
			Margin: proof.Margin{Absolute: 130}},
		{Name: "client_bytes", Title: "memory charged to the client for each connection", Unit: "bytes"},
		lab.ServerTimeWait, lab.ClientTimeWait,
	},
	Arms: []lab.Arm{
		{
			Arm: why(base("Closed by the service: its TIME_WAIT is charged to nobody",
				proof.Between("service_bytes", 0, 130)),
				"They are made where segments are received, and no process is charged there: "+
					"256 bytes of the host for each."),
			Seconds: 4, Run: charged(ServerCloses, untilClosed),
		},
		{
			Arm: why(observe("client-closes", "Closed by the client: TIME_WAIT made in its close() is charged to it",
				"the client closes first", proof.NoEffect, proof.Between("client_bytes", 230, 450)),
				"close() itself puts the time-wait socket, still in FIN_WAIT2, in the place of "+
					"a socket of some 3,900 bytes."),
			Seconds: 4, Run: charged(clientCloses, stage.DialSpec{}),
		},
		{
			Arm: observe("open", "Connections that stay open", "keep-alive", proof.Harmful,
				proof.Between("service_bytes", 800, 8000)),
			Seconds: 4, Run: charged(stage.ServeSpec{Unread: true}, stage.DialSpec{}),
		},
		{
			Arm: observe("unread", "Connections with 16 KiB each that the service does not read", "a slow service",
				proof.Harmful, proof.Between("service_bytes", 16<<10, 64<<10)),
			Seconds: 4, Run: charged(stage.ServeSpec{Unread: true}, stage.DialSpec{Send: 16 << 10}),
		},
		{
			Arm: turning("tcp_max_tw_buckets", folklore("max-tw-buckets", "A lower limit of TIME_WAIT, to save memory",
				"net.ipv4.tcp_max_tw_buckets=10", proof.NoEffect, upTo(10))),
			Seconds: 4, Run: charged(ServerCloses, untilClosed, Buckets("10")),
		},
	},
}
