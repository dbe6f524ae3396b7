package snapshot

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"linger/internal/tcp"
)

func TestTracedSince(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one, two := uint64(1), uint64(3)
	client := TracedKey{Process: "client", Role: tcp.Connector}
	idle := TracedKey{Process: "idle", Role: tcp.Acceptor}
	earlier := &Traced{Began: began, MS: 1000, Missed: &one, Groups: []TracedGroup{
		{TracedKey: idle, TracedCounts: TracedCounts{Opens: 5, ClosedHere: 5}},
		{TracedKey: client, TracedCounts: TracedCounts{
			Opens: 10, Live: 4, Failed: map[string]uint64{"refused": 2}, Lives: Histogram{{100, 1}, {200, 5}},
		}},
	}}
	now := &Traced{Began: began, MS: 2500, Missed: &two, Groups: []TracedGroup{
		{TracedKey: client, TracedCounts: TracedCounts{
			Opens: 17, Live: 2, Failed: map[string]uint64{"refused": 2, "no-port": 1}, Lives: Histogram{{50, 1}, {100, 1}, {200, 8}},
		}},
		{TracedKey: idle, TracedCounts: TracedCounts{Opens: 5, ClosedHere: 5}},
	}}
	missed := uint64(2)
	want := &Traced{Began: began.Add(time.Second), MS: 1500, Missed: &missed, Groups: []TracedGroup{
		{TracedKey: client, TracedCounts: TracedCounts{
			Opens: 7, Live: 2, Failed: map[string]uint64{"no-port": 1}, Resets: Resets{Sent: map[string]uint64{}},
			Lives: Histogram{{50, 1}, {200, 3}},
		}},
	}}
	got := now.Since(earlier)
	got.Other = TracedCounts{}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(tcp.Endpoint{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// A group that was given up is in no interval, and stays in the total. What begins anew under its
// name begins at nothing.
func TestTracedGivenUp(t *testing.T) {
	key := func(serial uint64) TracedKey { return TracedKey{Process: "job", Role: tcp.Connector, Serial: serial} }
	earlier := &Traced{Groups: []TracedGroup{{TracedKey: key(1), TracedCounts: TracedCounts{Opens: 5, ClosedHere: 5}}}}
	now := &Traced{
		Groups: []TracedGroup{{TracedKey: key(2), TracedCounts: TracedCounts{Opens: 2, Live: 2}}},
		Past:   TracedCounts{Opens: 5, ClosedHere: 5},
	}
	interval := now.Since(earlier).Total()
	if all := now.Total(); all.Opens != 7 || all.ClosedHere != 5 || interval.Opens != 2 || interval.ClosedHere != 0 {
		t.Errorf("in all %+v, in the interval %+v", all, interval)
	}
}

// A quantile lies between the least and the greatest value, and does not fall with its share.
func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Histogram
		least := uint64(0)
		for range rapid.IntRange(1, 20).Draw(t, "bins") {
			least += rapid.Uint64Range(1, 1000).Draw(t, "least")
			h = append(h, Bin{least, rapid.Uint64Range(1, 50).Draw(t, "n")})
		}
		a, b := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		if a > b {
			a, b = b, a
		}
		low, known := h.Quantile(a)
		high, _ := h.Quantile(b)
		if !known || low > high || low < h[0].Least || high > least {
			t.Fatalf("quantiles %v and %v of %v are %v and %v", a, b, h, low, high)
		}
	})
	if _, known := Histogram(nil).Quantile(0.5); known {
		t.Error("of no value a quantile is known")
	}
}

func TestSpreads(t *testing.T) {
	c := TracedCounts{Lives: Histogram{{1000, 1}, {9000, 99}}, Sent: Histogram{{0, 50}, {64, 50}}}
	c.Add(&TracedCounts{Sent: Histogram{{64, 2}}})
	s := c.Spread()
	if *s.LifeMS.P50 != 9 || *s.SentEach.P50 != 64 || s.ReceivedEach.P50 != nil || s.ReceivedEach.P99 != nil {
		t.Errorf("the spreads are %+v", s)
	}
}
