package lab_test

import (
	"context"
	"testing"
	"time"

	"linger/internal/lab"
)

func BenchmarkFill(b *testing.B) {
	for b.Loop() {
		t, err := lab.NewLoopback("bench")
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		d, err := lab.Fill(ctx, t.Nodes[0], lab.FillSpec{Sockets: 200000})
		cancel()
		b.Logf("%+v %v", d, err)
		if err := t.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
