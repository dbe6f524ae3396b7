package lab_test

import (
	"context"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/score"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
)

// What these seeds draw is named as it was built: a churning service at its second
// address; ports that run out within one host, over IPv6; a host that has gone; nothing,
// beside every kind of churn; a leak that another client shares; and ports that wait for
// tcp_tw_reuse.
func TestDrawnIsNamed(t *testing.T) {
	t.Parallel()
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	var worlds []score.World
	for _, seed := range []uint64{19, 22, 35, 43, 47, 54} {
		worlds = append(worlds, score.Draw(seed))
	}
	for _, s := range score.Random(stagetest.Context(t), worlds, nil) {
		if s.Miss != "" || s.Cannot != "" {
			t.Errorf("seed %d: built %s, named %v: %s%s\n%s", *s.Seed, s.Built, s.Named, s.Miss, s.Cannot, s.Drawn)
		}
	}
}

// Every problem is named as it was built, its consequences beside it and no other, and
// nothing is where it is cured. What this kernel cannot have says why.
func TestAllAreScoredRight(t *testing.T) {
	t.Parallel()
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	var last lab.Progress
	scores := score.All(stagetest.Context(t), func(p lab.Progress) { last = p })
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
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range append(score.Random(ctx, []score.World{score.Draw(1)}, nil), score.All(ctx, nil)...) {
		if s.Absent == "" && s.Cannot == "" {
			t.Errorf("%+v", s)
		}
	}
}
