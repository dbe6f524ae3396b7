package lab_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab"
)

// What these seeds draw is named as it was built: a churning service at its second
// address; ports that run out within one host, over IPv6; a host that has gone; nothing,
// beside every kind of churn; a leak that another client shares; and ports that wait for
// tcp_tw_reuse.
func TestDrawnIsNamed(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	var worlds []lab.World
	for _, seed := range []uint64{19, 22, 35, 43, 47, 54} {
		worlds = append(worlds, lab.Draw(seed))
	}
	for _, s := range lab.ScoreRandom(context3m(t), worlds, nil) {
		if s.Miss != "" || s.Cannot != "" {
			t.Errorf("seed %d: built %s, named %v: %s%s\n%s", *s.Seed, s.Built, s.Named, s.Miss, s.Cannot, s.Drawn)
		}
	}
}

// A seed draws the same again, and the seeds draw all that there is.
func TestDrawIsRepeatableAndReachesAll(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(400) {
		w := lab.Draw(seed)
		if again := lab.Draw(seed); !reflect.DeepEqual(w, again) {
			t.Fatalf("seed %d: %+v, and then %+v", seed, w, again)
		}
		seen["fault "+string(w.Fault)] = true
		seen["IPv6 "+familyName(w.Options.IPv6)] = true
		for _, b := range w.Bystanders {
			seen["bystander "+string(b.Kind)] = true
			if !strings.Contains(w.String(), b.String()) {
				t.Errorf("seed %d does not tell of %s:\n%s", seed, b, w)
			}
		}
		if w.Fault != "" && w.Client == w.Server {
			seen["both roles on one host"] = true
		}
		if !strings.Contains(w.String(), string(w.Fault)) {
			t.Errorf("seed %d does not tell of %s:\n%s", seed, w.Fault, w)
		}
	}
	want := []string{"fault ", "IPv6 IPv4", "IPv6 IPv6", "both roles on one host"}
	for _, s := range possible() {
		want = append(want, "fault "+string(s.Slug))
	}
	for _, k := range []lab.BystanderKind{
		lab.Idle, lab.Pool, lab.ClientChurn, lab.ServiceChurn, lab.BurstOfChurn, lab.Crawler,
		lab.Loopback, lab.Reuser, lab.Relay, lab.Stragglers, lab.Accidents, lab.Sharer,
	} {
		want = append(want, "bystander "+string(k))
	}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("no seed draws %s", w)
		}
	}
}

// Every problem is named as it was built, its consequences beside it and no other, and
// nothing is where it is cured. What this kernel cannot have says why.
func TestAllAreScoredRight(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	var last lab.Progress
	scores := lab.ScoreAll(context3m(t), func(p lab.Progress) { last = p })
	if len(scores) != len(diagnose.Rules()) || last.Done != len(scores) || last.Left != 0 {
		t.Errorf("%d scores for %d problems, progress ends at %+v", len(scores), len(diagnose.Rules()), last)
	}
	for _, s := range scores {
		switch {
		case s.Built == "tw-recycle":
			if !strings.Contains(s.Absent, "4.12") {
				t.Errorf("%s: %+v", s.Built, s)
			}
		case s.Absent+s.Cannot+s.Miss != "" || len(s.Cured) > 0 || len(s.Named) == 0 || string(s.Named[0]) != s.Built:
			t.Errorf("%s: %+v", s.Built, s)
		}
	}
}

// What a cancelled run did not build is not called right.
func TestCancelledScores(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range append(lab.ScoreRandom(ctx, []lab.World{lab.Draw(1)}, nil), lab.ScoreAll(ctx, nil)...) {
		if s.Absent == "" && s.Cannot == "" {
			t.Errorf("%+v", s)
		}
	}
}
