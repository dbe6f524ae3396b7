package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// WaitFor closes 50 connections at the client and records how long the first and the
// last of them stay, as the client's table of sockets tells.
func WaitFor(state, until tcp.State, closing stage.Closing, limit time.Duration, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: closing}, set...)
		if err != nil {
			return err
		}
		done, err := s.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 50})
		if err != nil {
			return err
		}
		if done.Opened != 50 {
			return fmt.Errorf("%d of 50 connections were opened: %s", done.Opened, done.FirstFailure)
		}
		if err := s.Client.Drop(ctx); err != nil {
			return err
		}
		return untilGone(ctx, t, s.ClientNode, state, until, limit)
	}
}

// untilGone records when half of a node's sockets in a state are gone, and when all are.
func untilGone(ctx context.Context, t *lab.Trial, n *stage.Node, state, until tcp.State, limit time.Duration) error {
	began := time.Now()
	curve := proof.Series{Name: state.String() + " that are left", XUnit: "s", YUnit: "sockets"}
	for most, half := 0, 0.0; ; stage.Sleep(ctx, 100*time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// With those on their way there: at the first look none may have arrived.
		left, err := n.Count(ctx, stage.ServicePort, tcp.FinWait1, tcp.FinWait2, state, until)
		if err != nil {
			return err
		}
		at := time.Since(began).Seconds()
		curve.X, curve.Y = append(curve.X, at), append(curve.Y, float64(left))
		most = max(most, left)
		if half == 0 && left <= most/2 {
			half = at
		}
		if left == 0 {
			t.Record("seconds", half)
			t.Record("last", at)
			t.Plot(thin(curve))
			return nil
		}
		if at > limit.Seconds() {
			return fmt.Errorf("%d of %d sockets are still there after %s", left, most, limit)
		}
	}
}

// thin keeps the points at which something changes.
func thin(s proof.Series) proof.Series {
	kept := proof.Series{Name: s.Name, XUnit: s.XUnit, YUnit: s.YUnit}
	for i := range s.X {
		if i == 0 || i == len(s.X)-1 || s.Y[i] != s.Y[i-1] || s.Y[i] != s.Y[i+1] {
			kept.X, kept.Y = append(kept.X, s.X[i]), append(kept.Y, s.Y[i])
		}
	}
	return kept
}
