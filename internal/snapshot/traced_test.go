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
		{TracedKey: client, TracedCounts: TracedCounts{Opens: 10, Live: 4, Failed: map[string]uint64{"refused": 2}, Lives: Lives{{100, 1}, {200, 5}}}},
	}}
	now := &Traced{Began: began, MS: 2500, Missed: &two, Groups: []TracedGroup{
		{TracedKey: client, TracedCounts: TracedCounts{Opens: 17, Live: 2, Failed: map[string]uint64{"refused": 2, "no-port": 1}, Lives: Lives{{50, 1}, {100, 1}, {200, 8}}}},
		{TracedKey: idle, TracedCounts: TracedCounts{Opens: 5, ClosedHere: 5}},
	}}
	missed := uint64(2)
	want := &Traced{Began: began.Add(time.Second), MS: 1500, Missed: &missed, Groups: []TracedGroup{
		{TracedKey: client, TracedCounts: TracedCounts{Opens: 7, Live: 2, Failed: map[string]uint64{"no-port": 1}, Resets: Resets{Sent: map[string]uint64{}}, Lives: Lives{{50, 1}, {200, 3}}}},
	}}
	got := now.Since(earlier)
	got.Other = TracedCounts{}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(tcp.Endpoint{})); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// A quantile lies between the shortest and the longest life, and does not fall with its share.
func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lives Lives
		us := uint64(0)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			us += rapid.Uint64Range(1, 1000).Draw(t, "us")
			lives = append(lives, LivesCount{us, rapid.Uint64Range(1, 50).Draw(t, "n")})
		}
		a, b := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		if a > b {
			a, b = b, a
		}
		low, known := lives.Quantile(a)
		high, _ := lives.Quantile(b)
		if !known || low > high || low < float64(lives[0].US)/1000 || high > float64(us)/1000 {
			t.Fatalf("quantiles %v and %v of %v are %v and %v", a, b, lives, low, high)
		}
	})
	if _, known := Lives(nil).Quantile(0.5); known {
		t.Error("of no life a quantile is known")
	}
	if ms, _ := (Lives{{1000, 1}, {9000, 99}}).Quantile(0.5); ms != 9 {
		t.Errorf("the median is %v ms, want 9", ms)
	}
}
