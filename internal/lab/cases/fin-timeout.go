package cases

import (
	"context"
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
