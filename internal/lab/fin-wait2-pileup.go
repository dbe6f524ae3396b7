package lab

import (
	"context"
	"fmt"
	"net/netip"
)

var finWait2PileUp = Scenario{
	Slug:  "fin-wait2-pileup",
	Title: "a client closes connections that the service never looks at",
	Cure:  "the service closes them too",
	Size:  200,
	build: func(ctx context.Context, b *Built, o Options) error {
		closing := AcceptNever
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		b.Expect.Owner = "" // orphans have none
		done, err := p.client.Churn(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		if err != nil || !o.Cured {
			return err
		}
		return awaitServed(ctx, p.server, int64(o.Size))
	},
}
