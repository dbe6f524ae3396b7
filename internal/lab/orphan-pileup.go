package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/proof"
	"linger/internal/tcp"
)

// threeTimes is longer than a FIN takes to be sent three times more: 0.2 s, doubled
// each time, and a margin.
const threeTimes = 4 * time.Second

var orphanPileUp = Scenario{
	Slug:  "orphan-pileup",
	Title: "a client closes its connections to a host that has gone",
	Cure:  "the host is there",
	Size:  200,
	build: func(ctx context.Context, b *Built, o Options) error {
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		b.Expect.Owner = "" // orphans have none
		done, err := p.client.Hold(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		if err != nil {
			return err
		}
		if !o.Cured {
			if err := b.server.vanish(b.client); err != nil {
				return err
			}
			b.RipeAt = time.Now().Add(threeTimes)
		}
		if err := p.client.Drop(ctx); err != nil {
			return err
		}
		if o.Cured {
			return awaitServed(ctx, p.server, int64(o.Size))
		}
		return nil
	},
}

// orphaned has a client close 100 connections to a host that has gone or not, and
// counts what still waits for it 4 s later.
func orphaned(gone bool, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		if _, err := s.parties.client.Hold(ctx, DialSpec{To: []netip.AddrPort{s.service}, Count: 100}); err != nil {
			return err
		}
		if gone {
			if err := s.server.vanish(s.client); err != nil {
				return err
			}
		}
		if err := s.parties.client.Drop(ctx); err != nil {
			return err
		}
		sleep(ctx, threeTimes)
		return t.recordStates(ctx, servicePort, tcp.FinWait1, map[string]*Node{"fin_wait1": s.client})
	}
}

var orphanPileUpProof = Experiment{
	Name: "orphan-pileup", Problem: "orphan-pileup",
	Title:    "Closed connections wait for a host that has gone",
	Question: "Which setting ends FIN_WAIT1?",
	Setup:    "100 connections closed towards a host that does not answer; counted 4 s later",
	Load:     Waits,
	Quantities: []proof.Quantity{
		{Name: "fin_wait1", Title: "FIN_WAIT1 at the client", Unit: "sockets", Better: proof.Less},
	},
	Arms: []Arm{
		{Arm: base("tcp_orphan_retries at its default", proof.Exactly("fin_wait1", 100)), Seconds: 5, Run: orphaned(true)},
		{Arm: remedy("peer-there", "The host is there", "it answers", proof.Works, proof.Exactly("fin_wait1", 0)), Seconds: 5, Run: orphaned(false)},
		{Arm: turning("tcp_orphan_retries", remedy("orphan-retries", "Fewer retries of an orphan", "net.ipv4.tcp_orphan_retries=1", proof.Works, proof.Exactly("fin_wait1", 0))), Seconds: 5, Run: orphaned(true, setting{atClient, "net.ipv4.tcp_orphan_retries", "1"})},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=1", proof.NoEffect)), Seconds: 5, Run: orphaned(true, setting{atClient, "net.ipv4.tcp_fin_timeout", "1"})},
		{Arm: turning("tcp_keepalive_time", folklore("keepalive", "A lower tcp_keepalive_time", "net.ipv4.tcp_keepalive_time=1", proof.NoEffect)), Seconds: 5, Run: orphaned(true, setting{atClient, "net.ipv4.tcp_keepalive_time", "1"})},
	},
}
