package lab

import (
	"context"
	"net/netip"
	"time"
)

// leakAge is the age from which CLOSE_WAIT is more than a program that is about to
// close; a little more, since ages are read with a step of the kernel's clock.
const leakAge = 3500 * time.Millisecond

var closeWaitLeak = Scenario{
	Slug:  "close-wait-leak",
	Title: "a service does not close connections that its client has closed",
	Cure:  "the service closes them",
	Size:  200,
	build: func(ctx context.Context, b *Built, o Options) error {
		closing := CloseNever
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = b.expectAcceptor(p)
		// With an end in sight, as it is on a real host.
		if err := p.server.LimitDescriptors(ctx, uint64(4*o.Size)); err != nil {
			return err
		}
		if err := burst(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size}); err != nil {
			return err
		}
		b.RipeAt = time.Now().Add(leakAge)
		return nil
	},
}
