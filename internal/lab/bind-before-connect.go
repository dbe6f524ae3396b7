package lab

import (
	"context"
	"fmt"
	"net/netip"
)

var bindBeforeConnect = Scenario{
	Slug:  "bind-before-connect",
	Title: "a client binds its source address before each of its connections to two services",
	Cure:  "it leaves the port to connect() (IP_BIND_ADDRESS_NO_PORT)",
	Size:  900,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := b.client.Set("net.ipv4.ip_local_port_range", "40000 41999"); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		other := netip.AddrPortFrom(p.service.Addr(), servicePort+1)
		if _, err := p.server.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{other}, Close: CloseSecond}); err != nil {
			return err
		}
		// One connection more to the first service: it is the larger one, and named.
		done, err := p.client.Hold(ctx, DialSpec{
			To: []netip.AddrPort{p.service, other}, From: []netip.Addr{b.client.Addr(o.IPv6)}, BindPort: !o.Cured, Count: o.Size + 1,
		})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		return err
	},
}
