// Package score holds what linger diagnose names against what was built: each problem and
// its cured state, and worlds that a seed has drawn.
package score

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/proof"
)

// scoreSlots is how many problems stand at a time: they mostly wait to be ripe.
const scoreSlots = 4

// All builds each problem, and each cured state in fresh namespaces, and scores
// what a diagnosis names.
func All(ctx context.Context, tell func(lab.Progress)) []proof.Score {
	built := scenarios()
	return scoreEach(ctx, len(built), tell, func(i int) proof.Score { return scoreScenario(ctx, built[i]) })
}

// Random builds what was drawn and scores what a diagnosis names.
func Random(ctx context.Context, worlds []World, tell func(lab.Progress)) []proof.Score {
	return scoreEach(ctx, len(worlds), tell, func(i int) proof.Score { return scoreWorld(ctx, worlds[i]) })
}

// scoreEach scores so many builds, some at a time, and tells how far it has come.
func scoreEach(ctx context.Context, total int, tell func(lab.Progress), score func(int) proof.Score) []proof.Score {
	scores := make([]proof.Score, total)
	slots := make(chan struct{}, scoreSlots)
	began := time.Now()
	var group sync.WaitGroup
	var mu sync.Mutex
	p := lab.Progress{Total: total, Left: scoreTakes * time.Duration((total+scoreSlots-1)/scoreSlots)}
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

// scoreScenario scores a problem and its cured state.
func scoreScenario(ctx context.Context, s cases.Scenario) proof.Score {
	score := proof.Score{Built: string(s.Slug), Named: []diagnose.Slug{}, Absent: s.Cannot}
	if s.Cannot != "" {
		return score
	}
	b, err := s.Build(ctx, cases.Options{})
	if err == nil {
		score, err = scoreBuilt(ctx, b, nil, truthOf(s, b))
	}
	if err != nil {
		score.Cannot = err.Error()
		return score
	}
	healed, err := s.Build(ctx, cases.Options{Cured: true})
	if err == nil {
		var cured proof.Score
		cured, err = scoreBuilt(ctx, healed, nil, proof.Truth{})
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

// scoreWorld scores what a seed has drawn.
func scoreWorld(ctx context.Context, w World) proof.Score {
	score := proof.Score{Built: cmp.Or(string(w.fault), proof.Healthy), Named: []diagnose.Slug{}}
	b, err := w.build(ctx)
	if err == nil {
		truth := proof.Truth{}
		if w.fault != "" {
			truth = truthOf(w.scenario(), b.Built)
		}
		truth.Healthy = b.healthy
		score, err = scoreBuilt(ctx, b.Built, b.unread, truth)
	}
	score.Seed, score.Drawn = &w.seed, w.String()
	if err != nil {
		score.Built, score.Cannot = cmp.Or(string(w.fault), proof.Healthy), err.Error()
	}
	return score
}

// truthOf is what a diagnosis of a scenario that stands has to name.
func truthOf(s cases.Scenario, b *cases.Built) proof.Truth {
	e := b.Expect
	return proof.Truth{
		Problem: s.Slug, Netns: e.Node.Inode(), Owner: e.Owner,
		Subject:      diagnose.Subject{Role: e.Role, Local: e.Local, Remote: e.Remote},
		Consequences: s.Consequences,
		Ends:         []uint64{b.ClientNode.Inode(), b.ServerNode.Inode()},
		Ports:        []uint16{stage.ServicePort, stage.ServicePort + 1},
	}
}

// scoreBuilt lets what stands ripen, has it judged but for the node that is to stay
// unread, and closes it.
func scoreBuilt(ctx context.Context, b *cases.Built, unread *stage.Node, t proof.Truth) (score proof.Score, err error) {
	defer func() { err = errors.Join(err, b.Close()) }()
	stage.Sleep(ctx, time.Until(b.RipeAt))
	const looks = 3 // whom the first one does not see, another may
	for range looks {
		if score, err = look(ctx, b.Topology.Nodes, unread, t); err != nil || !score.Nobody {
			break
		}
	}
	return score, err
}

// look judges the namespaces alone.
func look(ctx context.Context, nodes []*stage.Node, unread *stage.Node, t proof.Truth) (score proof.Score, err error) {
	ask := collect.Options{Window: time.Second}
	for _, n := range nodes {
		if n != unread {
			ask.Netns = append(ask.Netns, n.Path())
		}
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

// scenarios are the problems that can be built, in the order of their slugs.
func scenarios() (found []cases.Scenario) {
	for _, c := range cases.All() {
		if c.Scenario != nil {
			found = append(found, *c.Scenario)
		}
	}
	return found
}
