package lab

import (
	"context"
	"net/netip"
	"time"
)

var clientClosesFirst = Scenario{
	Slug:  "client-closes-first",
	Title: "a client opens a connection for each request, and closes it first",
	Cure:  "the client keeps a pool of connections",
	Size:  2000,
	build: func(ctx context.Context, b *Built, o Options) error {
		if o.Tight {
			if err := narrowRange(b.client, tightFactor*o.Size); err != nil {
				return err
			}
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		if o.Cured {
			return pool(ctx, p, o.Size)
		}
		if err := burstThenSteady(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size}); err != nil {
			return err
		}
		// Until then it would look as if the range were to run out within the minute.
		b.RipeAt = time.Now().Add(quietAfterBurst)
		return nil
	},
}
