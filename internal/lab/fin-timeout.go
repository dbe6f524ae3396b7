package lab

import (
	"context"
	"time"
)

var finTimeout = Scenario{
	Slug:  "fin-timeout",
	Title: "tcp_fin_timeout is 90, between 61 and 119",
	Cure:  "tcp_fin_timeout is at its default of 60",
	Size:  20,
	build: func(ctx context.Context, b *Built, o Options) error {
		seconds := "90"
		if o.Cured {
			seconds = "60"
		}
		if err := b.server.Set("net.ipv4.tcp_fin_timeout", seconds); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = Expectation{Node: b.server}
		b.RipeAt = time.Now()
		return pool(ctx, p, o.Size)
	},
}
