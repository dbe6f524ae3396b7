package lab

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

var connectionChurn = Scenario{
	Slug:  "connection-churn",
	Title: "a service closes each connection first",
	Cure:  "the service keeps its connections alive, and its client uses them again",
	Size:  2000,
	build: func(ctx context.Context, b *Built, o Options) error {
		if o.Tight {
			if err := b.server.Set("net.ipv4.tcp_max_tw_buckets", strconv.Itoa(tightFactor*o.Size)); err != nil {
				return err
			}
		}
		closing := CloseFirst
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = b.expectAcceptor(p)
		if o.Cured {
			return pool(ctx, p, o.Size)
		}
		if err := burstThenSteady(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size, PeerCloses: true}); err != nil {
			return err
		}
		b.RipeAt = time.Now()
		return nil
	},
}
