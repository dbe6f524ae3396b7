package lab

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

var timeWaitOverflow = Scenario{
	Slug:  "time-wait-overflow",
	Title: "a service closes more connections than tcp_max_tw_buckets allows to wait",
	Cure:  "tcp_max_tw_buckets is sixteen times as large",
	Size:  1000,
	build: func(ctx context.Context, b *Built, o Options) error {
		buckets := o.Size
		if o.Cured {
			buckets *= 16
		}
		if err := b.server.Set("net.ipv4.tcp_max_tw_buckets", strconv.Itoa(buckets)); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseFirst)
		if err != nil {
			return err
		}
		// The limit is the namespace's: no connection is to blame alone.
		b.Expect = Expectation{Node: b.server}
		b.RipeAt = time.Now()
		return burstThenSteady(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size + o.Size/5, PeerCloses: true})
	},
}
