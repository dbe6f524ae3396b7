package lab

import (
	"context"
	"net/netip"
)

// shortBacklog is filled in a second.
const shortBacklog = 16

var acceptQueueOverflow = Scenario{
	Slug:  "accept-queue-overflow",
	Title: "a service does not accept, and its queue of 16 is full",
	Cure:  "the service accepts",
	Size:  40,
	build: func(ctx context.Context, b *Built, o Options) error {
		server, err := b.server.Start(ctx, serverProcess)
		if err != nil {
			return err
		}
		p := parties{server: server, service: netip.AddrPortFrom(b.server.Addr(o.IPv6), servicePort)}
		b.Expect = b.expectAcceptor(p)
		spec := ServeSpec{Endpoints: []netip.AddrPort{p.service}, Close: AcceptNever, Backlog: shortBacklog}
		if o.Cured {
			spec.Close = CloseSecond
		}
		if _, err := server.Serve(ctx, spec); err != nil {
			return err
		}
		if p.client, err = b.client.Start(ctx, clientProcess); err != nil {
			return err
		}
		// Each attempt gives up before the kernel would send its SYN again.
		dial := DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size, Batch: 1, PatienceMS: 100}
		if _, err := p.client.Churn(ctx, dial); err != nil {
			return err
		}
		dial.Count, dial.Rate = 0, 10
		return p.client.Begin(ctx, dial)
	},
}
