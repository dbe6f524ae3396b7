package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

var portExhaustion = Scenario{
	Slug:  "port-exhaustion",
	Title: "a client's TIME_WAIT takes every source port towards one service",
	Cure:  "the client keeps a pool of connections",
	Size:  1000,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := narrowRange(b.client, o.Size); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		b.RipeAt = time.Now()
		if o.Cured {
			return pool(ctx, p, o.Size)
		}
		// A few connections stay, as they do in a program whose requests take their
		// time: they are all that tells whose the rest were.
		if err := pool(ctx, p, o.Size/10); err != nil {
			return err
		}
		// More than there are ports: some TIME_WAIT sockets are killed by a late RST
		// of the other end (RFC 1337).
		dial := DialSpec{To: []netip.AddrPort{p.service}, Count: 2 * o.Size}
		done, err := p.client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		if done.NoPort == 0 {
			return errors.New("no connection failed for want of a port")
		}
		if err := awaitServed(ctx, p.server, int64(done.Opened)); err != nil {
			return err
		}
		return steady(ctx, p, dial)
	},
}

// narrowRange leaves n ports for connect() to choose from.
func narrowRange(n *Node, ports int) error {
	const low = 40_000
	return n.Set("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", low, low+ports-1))
}
