package lab

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"linger/internal/proof"
	"linger/internal/tcp"
)

// chargedConnections are enough for what the kernel charges ahead, 64 pages on each CPU
// (MEMCG_CHARGE_BATCH), to be little of each.
const chargedConnections = 4000

// charged has a client open connections, and records what the control groups of the
// service and of the client are charged for each, once nothing moves. Those that a
// service leaves unread stay open.
func charged(serve ServeSpec, dial DialSpec, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, serve, set...)
		if err != nil {
			return err
		}
		groups, before := map[string]controlGroup{}, map[string]float64{}
		for quantity, w := range map[string]*WorkerProcess{"service_bytes": s.parties.server, "client_bytes": s.parties.client} {
			if groups[quantity], err = t.controlGroup("memory", w); err != nil {
				return err
			}
			if err := groups[quantity].countSockets(); err != nil {
				return err
			}
			if before[quantity], err = groups[quantity].kernelMemory(); err != nil {
				return err
			}
		}
		open := s.parties.client.Churn
		if serve.Unread {
			open = s.parties.client.Hold
		}
		dial.To, dial.Count = []netip.AddrPort{s.service}, chargedConnections
		done, err := open(ctx, dial)
		if err == nil && done.Opened != chargedConnections {
			err = fmt.Errorf("%d of %d connections were opened: %s", done.Opened, chargedConnections, done.FirstFailure)
		}
		if err != nil {
			return err
		}
		if err := awaitAccepted(ctx, s.parties.server, chargedConnections); err != nil {
			return err
		}
		if err := settled(ctx, s.client, s.server); err != nil {
			return err
		}
		for quantity, g := range groups {
			after, err := g.settledMemory(ctx)
			if err != nil {
				return err
			}
			t.Record(quantity, (after-before[quantity])/chargedConnections)
		}
		return t.recordStates(ctx, servicePort, tcp.TimeWait, map[string]*Node{"client_time_wait": s.client, "server_time_wait": s.server})
	}
}

// settledMemory is kernelMemory when it has not fallen for a second: what was closed is
// given back after a grace period of RCU.
func (g controlGroup) settledMemory(ctx context.Context) (float64, error) {
	least, since := math.Inf(1), time.Now()
	for time.Since(since) < time.Second {
		now, err := g.kernelMemory()
		if err != nil {
			return 0, err
		}
		if now < least {
			least, since = now, time.Now()
		}
		if sleep(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	return least, nil
}

// awaitAccepted waits until a service has taken n connections.
func awaitAccepted(ctx context.Context, server *WorkerProcess, n int64) error {
	for {
		served, err := server.Served(ctx)
		if err != nil || served.Accepted >= n {
			return err
		}
		sleep(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d connections were accepted: %w", served.Accepted, n, context.Cause(ctx))
		}
	}
}

var timeWaitMemoryProof = Experiment{
	Name: "time-wait-memory", Problem: "resource-pressure",
	Title:    "Whose memory is a TIME_WAIT socket?",
	Question: "Does TIME_WAIT use up the memory that a container may have?",
	Setup:    "4,000 connections between a service and a client, each in a memory control group of its own; what the kernel charges the group for each connection",
	Quantities: []proof.Quantity{
		{Name: "service_bytes", Title: "memory charged to the service for each connection", Unit: "bytes", Better: proof.Less, Margin: proof.Margin{Absolute: 130}},
		{Name: "client_bytes", Title: "memory charged to the client for each connection", Unit: "bytes"},
		serverHolds, clientHolds,
	},
	Arms: []Arm{
		{Arm: why(base("Closed by the service: its TIME_WAIT is charged to nobody", proof.Between("service_bytes", 0, 130)), "They are made where segments are received, and no process is charged there: 256 bytes of the host for each."), Seconds: 4, Run: charged(serverCloses, untilClosed)},
		{Arm: why(observe("client-closes", "Closed by the client: TIME_WAIT made in its close() is charged to it", "the client closes first", proof.NoEffect, proof.Between("client_bytes", 230, 450)), "close() itself puts the time-wait socket, still in FIN_WAIT2, in the place of a socket of some 3,900 bytes."), Seconds: 4, Run: charged(clientCloses, DialSpec{})},
		{Arm: observe("open", "Connections that stay open", "keep-alive", proof.Harmful, proof.Between("service_bytes", 800, 8000)), Seconds: 4, Run: charged(ServeSpec{Unread: true}, DialSpec{})},
		{Arm: observe("unread", "Connections with 16 KiB each that the service does not read", "a slow service", proof.Harmful, proof.Between("service_bytes", 16<<10, 64<<10)), Seconds: 4, Run: charged(ServeSpec{Unread: true}, DialSpec{Send: 16 << 10})},
		{Arm: turning("tcp_max_tw_buckets", folklore("max-tw-buckets", "A lower limit of TIME_WAIT, to save memory", "net.ipv4.tcp_max_tw_buckets=10", proof.NoEffect, upTo(10))), Seconds: 4, Run: charged(serverCloses, untilClosed, buckets("10"))},
	},
}
