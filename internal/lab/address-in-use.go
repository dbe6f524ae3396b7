package lab

import (
	"context"
	"fmt"
	"net/netip"

	"linger/internal/tcp"
)

var addressInUse = Scenario{
	Slug:  "address-in-use",
	Title: "a service has ended, and an outgoing connection of another program sits on its port",
	Cure:  "the outgoing connection has another port",
	Size:  100,
	build: func(ctx context.Context, b *Built, o Options) error {
		// The clients, and the destination of the outgoing connection.
		p, err := b.start(ctx, o, CloseFirst)
		if err != nil {
			return err
		}
		done, err := p.client.Churn(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size, PeerCloses: true})
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
		}
		if err != nil {
			return err
		}
		other := netip.AddrPortFrom(b.client.Addr(o.IPv6), servicePort+1)
		if _, err := p.client.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{other}, Close: CloseSecond}); err != nil {
			return err
		}
		if err := p.server.Close(); err != nil {
			return err
		}
		blocker, err := b.server.Start(ctx, clientProcess)
		if err != nil {
			return err
		}
		dial := DialSpec{To: []netip.AddrPort{other}, Count: 1, FromPort: servicePort}
		if o.Cured {
			dial.FromPort = 0
		}
		done, err = blocker.Hold(ctx, dial)
		if err == nil && done.Failed > 0 {
			err = fmt.Errorf("connect from port %d: %s", servicePort, done.FirstFailure)
		}
		b.Expect = b.expectAcceptor(p)
		b.Expect.Owner = clientProcess
		b.Expect.Local = tcp.Endpoint{Addr: p.service.Addr(), Port: servicePort}
		return err
	},
}
