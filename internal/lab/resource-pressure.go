package lab

import (
	"context"
	"fmt"
	"net/netip"
)

var resourcePressure = Scenario{
	Slug:  "resource-pressure",
	Title: "a service reads nothing, and its clients go on sending",
	Cure:  "the clients send nothing",
	Size:  20,
	build: func(ctx context.Context, b *Built, o Options) error {
		// Few bytes of buffer, so that it is full at once.
		if err := b.server.Set("net.ipv4.tcp_rmem", "4096 8192 8192"); err != nil {
			return err
		}
		p, err := b.start(ctx, o, AcceptNever)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.server}
		done, err := p.client.Hold(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		if err != nil || o.Cured {
			return err
		}
		return p.client.Flood(ctx)
	},
}
