package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var finWait2PileUp = Case{
	Scenario: &Scenario{
		Slug:         "fin-wait2-pileup",
		Title:        "a client closes connections that the service never looks at",
		Cure:         "the service closes them too",
		Size:         200,
		Make:         makeFinWait2PileUp,
		Draw:         Draw{Sizes: [2]int{110, 600}, OneHost: true},
		Consequences: []diagnose.Slug{"close-wait-leak", "accept-queue-overflow"},
	},
	Experiments: []lab.Experiment{finWait2PileUpProof},
}

func makeFinWait2PileUp(ctx context.Context, b *Built, o Options) error {
	closing := stage.AcceptNever
	if o.Cured {
		closing = stage.CloseSecond
	}
	p, err := b.start(ctx, o, closing)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	b.Expect.Owner = "" // orphans have none
	done, err := p.Client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
	}
	if err != nil || !o.Cured {
		b.RipeAt = time.Now().Add(leakAge)
		return err
	}
	return p.Server.AwaitServed(ctx, int64(o.Size))
}

func finWait2Lasts(closing stage.Closing, seconds string) lab.Measure {
	return WaitFor(tcp.FinWait2, tcp.FinWait2TimeWait, closing, 150*time.Second, lab.AtClient(setting.FinTimeout, seconds))
}

// within bounds both quantities of a wait, whose timers are late by up to an eighth.
func within(low, high float64) []proof.Bound {
	return []proof.Bound{proof.Between("seconds", low, high), proof.Between("last", low, high)}
}

var finWait2PileUpProof = lab.Experiment{
	Name: "fin-wait2-pileup", Problem: "fin-wait2-pileup",
	Title:    "What tcp_fin_timeout does govern",
	Question: "How long does an orphan in FIN_WAIT2 wait for a peer that never closes?",
	Setup:    "50 connections that the client closes and the service never does",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "seconds", Title: "half of them are gone after", Unit: "seconds", Better: proof.Less,
			Margin: proof.Margin{Absolute: 8}},
		{Name: "last", Title: "the last is gone after", Unit: "seconds"},
	},
	Arms: []lab.Arm{
		{Arm: base("tcp_fin_timeout=60, the default", within(55, 69)...), Seconds: 68, Run: finWait2Lasts(stage.AcceptNever, "60")},
		{
			Arm:     remedy("peer-closes", "The peer closes too", "the service calls close()", proof.Works, within(0, 3)...),
			Seconds: 1, Run: finWait2Lasts(stage.CloseSecond, "60"),
		},
		{
			Arm: turning("tcp_fin_timeout", remedy("fin-timeout-30", "tcp_fin_timeout=30", "net.ipv4.tcp_fin_timeout=30", proof.Works,
				within(26, 36)...)),
			Seconds: 34, Run: finWait2Lasts(stage.AcceptNever, "30"),
		},
		{
			Arm: why(turning("tcp_fin_timeout", observe("fin-timeout-63", "tcp_fin_timeout=63: three seconds more, and a tenth of the time",
				"net.ipv4.tcp_fin_timeout=63", proof.Works, within(3, 12)...)),
				"Above 60 s the kernel keeps a full socket for what is above, and then "+
					"a time-wait socket for as long again: twice 3 s."),
			Seconds: 7, Run: finWait2Lasts(stage.AcceptNever, "63"),
		},
		{
			Arm: turning("tcp_fin_timeout", observe("fin-timeout-70", "tcp_fin_timeout=70", "net.ipv4.tcp_fin_timeout=70", proof.Works,
				within(16, 28)...)),
			Seconds: 22, Run: finWait2Lasts(stage.AcceptNever, "70"),
		},
		{
			Arm: turning("tcp_fin_timeout", folklore("fin-timeout-120", "tcp_fin_timeout=120", "net.ipv4.tcp_fin_timeout=120", proof.Harmful,
				within(112, 140)...)),
			Seconds: 128, Long: true, Run: finWait2Lasts(stage.AcceptNever, "120"),
		},
	},
}
