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

// threeTimes is longer than a FIN takes to be sent three times more: 0.2 s, doubled
// each time, and a margin.
const threeTimes = 4 * time.Second

var orphanPileUp = Case{
	Scenario: &Scenario{
		Slug:         "orphan-pileup",
		Title:        "a client closes its connections to a host that has gone",
		Cure:         "the host is there",
		Size:         200,
		Make:         makeOrphanPileUp,
		Draw:         Draw{Sizes: [2]int{110, 600}, Gone: true},
		Consequences: []diagnose.Slug{"vanished-connections"},
	},
	Experiments: []lab.Experiment{orphanPileUpProof},
}

func makeOrphanPileUp(ctx context.Context, b *Built, o Options) error {
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	b.Expect.Owner = "" // orphans have none
	done, err := p.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
	}
	if err != nil {
		return err
	}
	if !o.Cured {
		if err := b.ServerNode.Vanish(b.ClientNode); err != nil {
			return err
		}
		b.RipeAt = time.Now().Add(threeTimes)
	}
	if err := p.Client.Drop(ctx); err != nil {
		return err
	}
	if o.Cured {
		return p.Server.AwaitServed(ctx, int64(o.Size))
	}
	return nil
}

// orphaned has a client close 100 connections to a host that has gone or not, and
// counts what still waits for it 4 s later.
func orphaned(gone bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		if _, err := s.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 100}); err != nil {
			return err
		}
		if gone {
			if err := s.ServerNode.Vanish(s.ClientNode); err != nil {
				return err
			}
		}
		if err := s.Client.Drop(ctx); err != nil {
			return err
		}
		stage.Sleep(ctx, threeTimes)
		return t.RecordStates(ctx, stage.ServicePort, tcp.FinWait1, map[string]*stage.Node{"fin_wait1": s.ClientNode})
	}
}

var orphanPileUpProof = lab.Experiment{
	Name: "orphan-pileup", Problem: "orphan-pileup",
	Title:    "Closed connections wait for a host that has gone",
	Question: "Which setting ends FIN_WAIT1?",
	Setup:    "100 connections closed towards a host that does not answer; counted 4 s later",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "fin_wait1", Title: "FIN_WAIT1 at the client", Unit: "sockets", Better: proof.Less},
	},
	Arms: []lab.Arm{
		{Arm: base("tcp_orphan_retries at its default", proof.Exactly("fin_wait1", 100)), Seconds: 5, Run: orphaned(true)},
		{
			Arm:     remedy("peer-there", "The host is there", "it answers", proof.Works, proof.Exactly("fin_wait1", 0)),
			Seconds: 5, Run: orphaned(false),
		},
		{
			Arm: turning("tcp_orphan_retries", remedy("orphan-retries", "Fewer retries of an orphan", "net.ipv4.tcp_orphan_retries=1", proof.Works,
				proof.Exactly("fin_wait1", 0))),
			Seconds: 5, Run: orphaned(true, lab.AtClient(setting.OrphanRetries, "1")),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=1", proof.NoEffect)),
			Seconds: 5, Run: orphaned(true, lab.AtClient(setting.FinTimeout, "1")),
		},
		{
			Arm: turning("tcp_keepalive_time", folklore("keepalive", "A lower tcp_keepalive_time", "net.ipv4.tcp_keepalive_time=1",
				proof.NoEffect)),
			Seconds: 5, Run: orphaned(true, lab.AtClient(setting.KeepaliveTime, "1")),
		},
	},
}
