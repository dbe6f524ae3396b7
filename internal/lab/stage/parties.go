package stage

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/tcp"
)

// Names of the two processes of most problems, as /proc/PID/comm shows them.
const (
	ClientProcess = "lab-client"
	ServerProcess = "lab-server"
)

// ServicePort is that of the service of most problems.
const ServicePort = 8080

// Parties are a client's and a service's process, and the service between them.
type Parties struct {
	Client, Server *Worker
	Service        netip.AddrPort
}

// batch is how many connections are open at a time of those that go on.
const batch = 5

// Burst makes connections as fast as it can and waits for their end.
func (p Parties) Burst(ctx context.Context, dial DialSpec) error {
	done, err := p.Client.Churn(ctx, dial)
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return fmt.Errorf("%d of %d connections failed: %s", done.Failed, dial.Count, done.FirstFailure)
	}
	return p.Server.AwaitServed(ctx, int64(done.Opened))
}

// BurstThenSteady is a minute of churn without the wait of a minute: most of it at
// once, the rest as it goes on, so many connections a second.
func (p Parties) BurstThenSteady(ctx context.Context, dial DialSpec, rate float64) error {
	if err := p.Burst(ctx, dial); err != nil {
		return err
	}
	return p.Steady(ctx, dial, rate)
}

// Steady opens and closes so many connections a second until all ends.
func (p Parties) Steady(ctx context.Context, dial DialSpec, rate float64) error {
	dial.Count, dial.Rate, dial.Batch = 0, rate, batch
	return p.Client.Begin(ctx, dial)
}

// Pool is the cure of churn: a few connections that stay, each used again and
// again.
func (p Parties) Pool(ctx context.Context, size int) error {
	const connections, rounds = 20, 10
	done, err := p.Client.Hold(ctx, DialSpec{To: []netip.AddrPort{p.Service}, Count: min(connections, size)})
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return fmt.Errorf("%d connections failed: %s", done.Failed, done.FirstFailure)
	}
	for range rounds {
		if err := p.Client.Talk(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Settled waits until no connection of a service's port is on its way to TIME_WAIT at any
// of the nodes.
func Settled(ctx context.Context, port uint16, nodes ...*Node) error {
	for {
		moving := 0
		for _, n := range nodes {
			some, err := n.Count(ctx, port, tcp.FinWait1, tcp.FinWait2, tcp.FinWait2TimeWait, tcp.Closing, tcp.LastAck,
				tcp.CloseWait)
			if err != nil {
				return err
			}
			moving += some
		}
		if moving == 0 {
			return nil
		}
		Sleep(ctx, 10*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d connections are not closed: %w", moving, context.Cause(ctx))
		}
	}
}
