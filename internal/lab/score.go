package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
)

// Score is what a diagnosis made of one built problem.
type Score struct {
	Built diagnose.Slug `json:"built"`
	// Named are the problems that it named above the level of information, the first
	// first; where the root is information itself, the first is there too.
	Named []diagnose.Slug `json:"named"`
	// Cured are those that it named above information in the cured state.
	Cured []diagnose.Slug `json:"cured"`
	// Cannot says why it could not be built, empty if it was.
	Cannot string `json:"cannot,omitempty"`
	// Miss says what is wrong with the diagnosis, empty if nothing is.
	Miss string `json:"miss,omitempty"`
}

// consequences are the other problems that a diagnosis may name beside the one that
// was built, since they follow from it.
var consequences = map[diagnose.Slug][]diagnose.Slug{
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
// what a diagnosis names. done is told after each.
func ScoreAll(ctx context.Context, done func(Progress)) []Score {
	scenarios := Scenarios()
	scores := make([]Score, len(scenarios))
	slots := make(chan struct{}, scoreSlots)
	var group sync.WaitGroup
	var mu sync.Mutex
	ended := 0
	for i, s := range scenarios {
		group.Go(func() {
			slots <- struct{}{}
			scores[i] = s.score(ctx)
			<-slots
			mu.Lock()
			defer mu.Unlock()
			ended++
			if done != nil {
				done(Progress{Done: ended, Total: len(scenarios), Last: string(s.Slug)})
			}
		})
	}
	group.Wait()
	return scores
}

func (s Scenario) score(ctx context.Context) Score {
	score := Score{Built: s.Slug, Named: []diagnose.Slug{}, Cured: []diagnose.Slug{}, Cannot: s.Cannot}
	if s.Cannot != "" {
		return score
	}
	findings, node, err := s.judged(ctx, Options{})
	if err != nil {
		score.Cannot = err.Error()
		return score
	}
	for i, f := range findings {
		if i == 0 || f.Severity != diagnose.Info {
			score.Named = appendNew(score.Named, f.Problem)
		}
		for _, r := range f.Related {
			if r.Severity != diagnose.Info {
				score.Named = appendNew(score.Named, r.Problem)
			}
		}
	}
	switch {
	case len(findings) == 0:
		score.Miss = "nothing was named"
	case findings[0].Problem != s.Slug:
		score.Miss = fmt.Sprintf("%s was named first", findings[0].Problem)
	case findings[0].Netns.Inode != node:
		score.Miss = "named in another namespace: " + findings[0].Netns.Label
	}
	for _, other := range score.Named {
		if score.Miss == "" && other != s.Slug && !slices.Contains(consequences[s.Slug], other) {
			score.Miss = fmt.Sprintf("%s does not follow from it", other)
		}
	}
	healed, _, err := s.judged(ctx, Options{Cured: true})
	if err != nil {
		score.Cannot = "cured: " + err.Error()
		return score
	}
	for _, f := range healed {
		if f.Severity != diagnose.Info {
			score.Cured = append(score.Cured, f.Problem)
			score.Miss = fmt.Sprintf("%s is named where it is cured", f.Problem)
		}
	}
	return score
}

func appendNew(slugs []diagnose.Slug, slug diagnose.Slug) []diagnose.Slug {
	if slices.Contains(slugs, slug) {
		return slugs
	}
	return append(slugs, slug)
}

// judged builds the scenario, lets it ripen and judges its namespaces alone. It gives
// the findings and the inode of the namespace that the first of them has to be of.
func (s Scenario) judged(ctx context.Context, o Options) ([]diagnose.Finding, uint64, error) {
	b, err := s.Build(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	defer b.Close()
	sleep(ctx, time.Until(b.RipeAt))
	ask := collect.Options{Window: time.Second}
	for _, n := range b.Topology.Nodes {
		ask.Netns = append(ask.Netns, n.Path())
	}
	snapshot, err := collect.Collect(ctx, ask)
	if err != nil {
		return nil, 0, err
	}
	findings := diagnose.Judge(snapshot, diagnose.DefaultThresholds()).Findings
	// The laboratory itself keeps the machine busy, and it is right to say so.
	findings = slices.DeleteFunc(findings, func(f diagnose.Finding) bool {
		return f.Problem == diagnose.ResourcePressure && f.Severity == diagnose.Info
	})
	return findings, b.Expect.Node.Inode(), nil
}
