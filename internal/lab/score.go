package lab

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/proof"
)

// consequences are the other problems that a diagnosis may name beside the one that
// was built, since they follow from it.
var consequences = map[diagnose.Slug][]diagnose.Slug{
	"client-closes-first":   {"tw-reuse"},
	"accept-queue-overflow": {"close-wait-leak", "fin-wait2-pileup", "orphan-pileup", "vanished-connections"},
	"close-wait-leak":       {"fin-wait2-pileup"},
	"conntrack-full":        {},
	"fin-wait2-pileup":      {"close-wait-leak", "accept-queue-overflow"},
	"orphan-pileup":         {"vanished-connections"},
	"port-exhaustion":       {"client-closes-first", "tw-reuse", "connection-churn"},
	"tw-reuse":              {"client-closes-first", "port-exhaustion"},
	"time-wait-overflow":    {"connection-churn"},
	"resource-pressure":     {"accept-queue-overflow"},
	"syn-on-time-wait":      {"connection-churn", "vanished-connections"},
	"nat-port-exhaustion":   {"orphan-pileup"},
}

// scoreSlots is how many problems stand at a time: they mostly wait to be ripe.
const scoreSlots = 4

// ScoreAll builds each problem, and each cured state in fresh namespaces, and scores
// what a diagnosis names.
func ScoreAll(ctx context.Context, tell func(Progress)) []proof.Score {
	scenarios := Scenarios()
	return scoreEach(ctx, len(scenarios), tell, func(i int) proof.Score { return scenarios[i].score(ctx) })
}

// ScoreRandom builds what was drawn and scores what a diagnosis names.
func ScoreRandom(ctx context.Context, worlds []World, tell func(Progress)) []proof.Score {
	return scoreEach(ctx, len(worlds), tell, func(i int) proof.Score { return worlds[i].scored(ctx) })
}

// scoreEach scores so many builds, some at a time, and tells how far it has come.
func scoreEach(ctx context.Context, total int, tell func(Progress), score func(int) proof.Score) []proof.Score {
	scores := make([]proof.Score, total)
	slots := make(chan struct{}, scoreSlots)
	began := time.Now()
	var group sync.WaitGroup
	var mu sync.Mutex
	p := Progress{Total: total, Left: scoreTakes * time.Duration((total+scoreSlots-1)/scoreSlots)}
	if tell != nil {
		tell(p)
	}
	for i := range total {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				scores[i].Cannot = context.Cause(ctx).Error()
				return
			}
			scores[i] = score(i)
			mu.Lock()
			defer mu.Unlock()
			p.Done++
			p.Left = time.Since(began) / time.Duration(p.Done) * time.Duration(total-p.Done)
			if tell != nil {
				tell(p)
			}
		})
	}
	group.Wait()
	return scores
}

// scoreTakes is about how long one build takes to stand, to ripen and to be judged.
const scoreTakes = 12 * time.Second

func (s Scenario) score(ctx context.Context) proof.Score {
	score := proof.Score{Built: string(s.Slug), Named: []diagnose.Slug{}, Absent: s.Cannot}
	if s.Cannot != "" {
		return score
	}
	b, err := s.Build(ctx, Options{})
	if err == nil {
		score, err = b.score(ctx, b.truth())
	}
	if err != nil {
		score.Cannot = err.Error()
		return score
	}
	healed, err := s.Build(ctx, Options{Cured: true})
	if err == nil {
		var cured proof.Score
		cured, err = healed.score(ctx, proof.Truth{})
		score.Cured = cured.Named
		if score.Miss == "" && cured.Miss != "" {
			score.Miss = "where it is cured: " + cured.Miss
		}
	}
	if err != nil {
		score.Cannot = "cured: " + err.Error()
	}
	return score
}

func (w World) scored(ctx context.Context) proof.Score {
	score := proof.Score{Built: cmp.Or(string(w.Fault), proof.Healthy), Named: []diagnose.Slug{}}
	b, err := w.build(ctx)
	if err == nil {
		score, err = b.score(ctx, b.truth())
	}
	score.Seed, score.Drawn = &w.Seed, w.String()
	if err != nil {
		score.Built, score.Cannot = cmp.Or(string(w.Fault), proof.Healthy), err.Error()
	}
	return score
}

// truth is what a diagnosis has to name.
func (b *Built) truth() proof.Truth {
	e := b.Expect
	return proof.Truth{
		Problem: b.Slug, Netns: e.Node.Inode(), Owner: e.Owner,
		Subject:      diagnose.Subject{Role: e.Role, Local: e.Local, Remote: e.Remote},
		Consequences: consequences[b.Slug],
		Ends:         []uint64{b.client.Inode(), b.server.Inode()},
		Ports:        []uint16{servicePort, servicePort + 1},
	}
}

// score lets what stands ripen, has it judged, and closes it.
func (b *Built) score(ctx context.Context, t proof.Truth) (score proof.Score, err error) {
	defer func() { err = errors.Join(err, b.Close()) }()
	sleep(ctx, time.Until(b.RipeAt))
	const looks = 3 // whom the first one does not see, another may
	for range looks {
		if score, err = b.look(ctx, t); err != nil || !score.Nobody {
			break
		}
	}
	return score, err
}

// look judges the namespaces alone.
func (b *Built) look(ctx context.Context, t proof.Truth) (score proof.Score, err error) {
	ask := collect.Options{Window: time.Second}
	for _, n := range b.Topology.Nodes {
		if n == b.unread {
			continue
		}
		ask.Netns = append(ask.Netns, n.Path())
	}
	snapshot, err := collect.Collect(ctx, ask)
	if err != nil {
		return score, err
	}
	if err := ctx.Err(); err != nil {
		return score, context.Cause(ctx)
	}
	// What files of the host set, and how busy the laboratory keeps it, was not built.
	snapshot.Host.Boot = nil
	findings := diagnose.Judge(snapshot, diagnose.DefaultThresholds()).Findings
	findings = slices.DeleteFunc(findings, func(f diagnose.Finding) bool { return f.Netns.Inode == 0 })
	return t.Holds(findings), nil
}
