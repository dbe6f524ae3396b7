package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"
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
