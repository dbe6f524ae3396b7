package cases

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
)

var conntrackFull = Case{
	Scenario: &Scenario{
		Slug:  "conntrack-full",
		Title: "connection tracking of a namespace is full to 95 %, a third of it in its TIME_WAIT",
		Cure:  "the table holds a tenth of that",
		Make:  makeConntrackFull,
	},
	Experiments: []lab.Experiment{conntrackFullProof},
}

func makeConntrackFull(ctx context.Context, b *Built, o Options) error {
	b.Expect = Expectation{Node: b.ServerNode}
	most, err := b.ServerNode.Number(setting.TrackedMax)
	if err != nil {
		return fmt.Errorf("limit of conntrack: %w", err)
	}
	entries := most * 95 / 100
	if o.Cured {
		entries /= 10
	}
	return b.ServerNode.Track(ctx, stage.MadeUp{IPv6: o.IPv6, Waiting: 3}, 0, entries)
}

// trackedConnects fills the table of a namespace to a share of its limit, in percent,
// and connects to a service there twenty times. Where the table holds TIME_WAIT it first
// knocks until it is let in: once a connection was dropped, the kernel's collector, which
// comes by once a minute or more often, takes what is in TIME_WAIT above 95 % of the limit
// (gc_worker of net/netfilter/nf_conntrack_core.c, tcp_can_early_drop).
func trackedConnects(percent int, like stage.MadeUp, untracked bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		if err := s.ServerNode.RefuseUnknown(nftables.ChainHookInput); err != nil {
			return err
		}
		if untracked {
			if err := s.ServerNode.LeaveUntracked(); err != nil {
				return err
			}
		}
		most, err := s.ServerNode.Number(setting.TrackedMax)
		if err != nil {
			return err
		}
		if err := s.ServerNode.FillTable(ctx, like, most*percent/100); err != nil {
			return err
		}
		dial := stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 1, PatienceMS: 150}
		for done := (stage.Dialed{}); like.Waiting > 0 && done.Opened == 0; {
			if done, err = s.Client.Hold(ctx, dial); err != nil {
				return err
			}
		}
		dial.Count = 20
		done, err := s.Client.Hold(ctx, dial)
		if err != nil {
			return err
		}
		t.RecordDialed(done)
		entries, err := s.ServerNode.Number(setting.TrackedCount)
		if err != nil {
			return err
		}
		t.Record("entries_percent", 100*float64(entries)/float64(most))
		return nil
	}
}

var conntrackFullProof = lab.Experiment{
	Name: "conntrack-full", Problem: "conntrack-full",
	Title:    "The connection-tracking table is full",
	Question: "New connections are dropped in silence. What lets them through?",
	Setup: "the namespace's own table filled with made-up connections that are established and assured (ctnetlink); 20 " +
		"connects. nf_conntrack_max is the host's and is not written",
	Quantities: []proof.Quantity{
		lab.Failures, lab.TimedOut, lab.Succeeded, {Name: "entries_percent", Title: "the table is full to", Unit: "%"},
	},
	Arms: []lab.Arm{
		{
			Arm:     base("the table is full", proof.Exactly("failed", 20)),
			Seconds: 12, Run: trackedConnects(100, stage.MadeUp{}, false),
		},
		{
			Arm: remedy("fewer", "A tenth as many entries", "fewer connections, or a limit ten times as large", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 3, Run: trackedConnects(10, stage.MadeUp{}, false),
		},
		{
			Arm: remedy("notrack", "Leave the service untracked", "nft: notrack in raw prerouting and output", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 12, Run: trackedConnects(100, stage.MadeUp{}, true),
		},
		{
			Arm: observe("time-wait-entries", "Filled with the table's own TIME_WAIT",
				"the kernel drops those above 95 %, at most a minute later", proof.Works, proof.Exactly("failed", 0)),
			Seconds: 65, Load: lab.Waits, Run: trackedConnects(100, stage.MadeUp{Waiting: 1}, false),
		},
		{
			Arm: why(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout, and tcp_tw_reuse",
				"net.ipv4.tcp_fin_timeout=5, tcp_tw_reuse=1", proof.NoEffect)),
				"The table has time-outs of its own (nf_conntrack_tcp_timeout_*)."),
			Seconds: 12, Run: trackedConnects(100, stage.MadeUp{}, false, lab.AtServer(setting.FinTimeout, "5"),
				lab.AtServer(setting.TWReuse, "1")),
		},
	},
}
