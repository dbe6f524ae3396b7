package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var finTimeout = Case{
	Scenario: &Scenario{
		Slug:  "fin-timeout",
		Title: "tcp_fin_timeout is 90, between 61 and 119",
		Cure:  "tcp_fin_timeout is at its default of 60",
		Size:  20,
		Make:  makeFinTimeout,
		Draw:  Draw{Sizes: [2]int{5, 100}, OneHost: true, Sharable: true},
	},
	Experiments: []lab.Experiment{finTimeoutProof},
}

func makeFinTimeout(ctx context.Context, b *Built, o Options) error {
	seconds := "90"
	if o.Cured {
		seconds = "60"
	}
	if err := b.ServerNode.Set(setting.FinTimeout, seconds); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = Expectation{Node: b.ServerNode}
	b.RipeAt = time.Now()
	return p.Pool(ctx, o.Size)
}

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

func timeWaitLasts(seconds string) lab.Measure {
	return WaitFor(tcp.TimeWait, tcp.TimeWait, stage.CloseSecond, 90*time.Second, lab.AtClient(setting.FinTimeout, seconds))
}

// aMinute is 60 s, and an eighth more for the timer wheel, whose steps grow with the
// time that is left (kernel/time/timer.c); a little less where some were closed while
// the first were counted.
func aMinute() []proof.Bound {
	return []proof.Bound{proof.Between("seconds", 56, 69), proof.Between("last", 56, 69)}
}

var finTimeoutProof = lab.Experiment{
	Name: "fin-timeout", Problem: "fin-timeout",
	Title:    "How long a socket stays in TIME_WAIT",
	Question: "Does a lower tcp_fin_timeout shorten TIME_WAIT?",
	Setup:    "50 connections that the client closes first; looked at every tenth of a second until the last is gone",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "seconds", Title: "half of them are gone after", Unit: "seconds", Better: proof.Less,
			Margin: proof.Margin{Absolute: 8}},
		{Name: "last", Title: "the last is gone after", Unit: "seconds"},
	},
	Arms: []lab.Arm{
		{Arm: base("tcp_fin_timeout=60, the default", aMinute()...), Seconds: 68, Run: timeWaitLasts("60")},
		{
			Arm:     observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect, aMinute()...),
			Seconds: 68, Run: lab.OverIPv6(timeWaitLasts("60")),
		},
		{
			Arm: turning("tcp_fin_timeout", folklore("fin-timeout-30", "tcp_fin_timeout=30, which \"halves the time\"",
				"net.ipv4.tcp_fin_timeout=30", proof.NoEffect, aMinute()...)),
			Seconds: 68, Run: timeWaitLasts("30"),
		},
		{
			Arm: why(turning("tcp_fin_timeout", folklore("fin-timeout-5", "tcp_fin_timeout=5", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect,
				aMinute()...)), "TIME_WAIT lasts TCP_TIMEWAIT_LEN, a constant of the kernel; the setting is for FIN_WAIT2."),
			Seconds: 68, Run: timeWaitLasts("5"),
		},
	},
}
