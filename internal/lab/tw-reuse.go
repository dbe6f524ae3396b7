package lab

import (
	"context"
	"net/netip"
	"time"
)

// The connections are fewer than 20 a second over a minute, and they are over when
// it is judged, so that what stands in the way of their ports is all that is wrong.
var twReuse = Scenario{
	Slug:  "tw-reuse",
	Title: "a client's TIME_WAIT holds source ports that tcp_tw_reuse would free, and it is off",
	Cure:  "tcp_tw_reuse is 1",
	Size:  900,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := narrowRange(b.client, 2*o.Size); err != nil {
			return err
		}
		reuse := "0"
		if o.Cured {
			reuse = "1"
		}
		if err := b.client.Set("net.ipv4.tcp_tw_reuse", reuse); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		if err := pool(ctx, p, o.Size/10); err != nil {
			return err
		}
		if err := burst(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size}); err != nil {
			return err
		}
		b.RipeAt = time.Now().Add(quietAfterBurst)
		return nil
	},
}
