package lab

import (
	"context"
	"net/netip"
)

var vanishedConnections = Scenario{
	Slug:  "vanished-connections",
	Title: "a service ends each connection by a reset",
	Cure:  "the service ends them by a FIN",
	build: func(ctx context.Context, b *Built, o Options) error {
		closing := CloseByReset
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.server}
		return p.client.Begin(ctx, DialSpec{To: []netip.AddrPort{p.service}, Rate: 15, Batch: 1})
	},
}
