package render

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"linger/internal/proof"
)

// verdicts in the order in which they are told.
var verdicts = []proof.Verdict{proof.Works, proof.NoEffect, proof.Harmful, proof.NotShown}

// tile counts the variants of one verdict.
type tile struct {
	Verdict proof.Verdict
	Count   int
	Means   string
}

func tilesOf(l Lab) (tiles []tile) {
	means := map[proof.Verdict]string{
		proof.Works:    "it got better, and nothing got worse",
		proof.NoEffect: "as without it",
		proof.Harmful:  "it, or something else, got worse",
		proof.NotShown: "noise hides what it does",
	}
	for _, v := range verdicts {
		t := tile{Verdict: v, Means: means[v]}
		for _, p := range l.Proofs {
			for _, r := range p.Variants {
				if r.Cannot == "" && r.Verdict == v {
					t.Count++
				}
			}
		}
		tiles = append(tiles, t)
	}
	return tiles
}

// saying is a variant and the proof that it is of.
type saying struct {
	Proof proof.Proof
	proof.Result
}

// variants are those that were judged.
func variants(l Lab, wanted func(proof.Result) bool) (all []saying) {
	for _, p := range l.Proofs {
		for _, r := range p.Variants {
			if r.Cannot == "" && r.Verdict != "" && wanted(r) {
				all = append(all, saying{p, r})
			}
		}
	}
	return all
}

func folkloreOf(l Lab) []saying {
	return variants(l, func(r proof.Result) bool { return r.Kind == proof.Folklore })
}

// curesOf are the remedies that work, without those that repeat one over IPv6.
func curesOf(l Lab) []saying {
	return variants(l, func(r proof.Result) bool {
		return r.Kind == proof.Remedy && r.Verdict == proof.Works && !strings.HasPrefix(r.ID, "ipv6")
	})
}

// knob is a setting that folklore turns, and what it did wherever it was tried: by
// verdict, each experiment once.
type knob struct {
	Name string
	Told []told
}

type told struct {
	Verdict proof.Verdict
	Tried   []saying
}

var knobName = regexp.MustCompile(`net\.(?:ipv4|core)\.[a-z0-9_]+|SO_[A-Z]+|ss -K`)

// knobsOf are the knobs that are turned in more than one experiment, the one that is
// turned most first.
func knobsOf(l Lab) (knobs []knob) {
	tried, folkloric := map[string][]saying{}, map[string]bool{}
	for _, s := range variants(l, func(proof.Result) bool { return true }) {
		name := strings.TrimPrefix(strings.TrimPrefix(knobName.FindString(s.How), "net.ipv4."), "net.core.")
		if name != "" {
			tried[name] = append(tried[name], s)
			folkloric[name] = folkloric[name] || s.Kind == proof.Folklore
		}
	}
	for name, all := range tried {
		if !folkloric[name] || len(all) < 2 {
			continue
		}
		k := knob{Name: name}
		for _, v := range verdicts {
			if same := once(all, v); len(same) > 0 {
				k.Told = append(k.Told, told{v, same})
			}
		}
		knobs = append(knobs, k)
	}
	slices.SortFunc(knobs, func(a, b knob) int {
		return cmp.Or(cmp.Compare(len(tried[b.Name]), len(tried[a.Name])), cmp.Compare(a.Name, b.Name))
	})
	return knobs
}

// once are the sayings of one verdict, the first of each experiment.
func once(all []saying, v proof.Verdict) (some []saying) {
	for _, s := range all {
		if s.Verdict == v && !slices.ContainsFunc(some, func(o saying) bool { return o.Proof.Experiment == s.Proof.Experiment }) {
			some = append(some, s)
		}
	}
	return some
}

// answer is what has the same verdict in one experiment.
type answer struct {
	Verdict proof.Verdict
	Titles  string
}

func answersOf(p proof.Proof) (all []answer) {
	for _, v := range verdicts {
		var titles []string
		for _, r := range p.Variants {
			if r.Cannot == "" && r.Verdict == v {
				titles = append(titles, r.Title)
			}
		}
		if len(titles) > 0 {
			all = append(all, answer{v, strings.Join(titles, "; ")})
		}
	}
	return all
}

// said is what a diagnosis named in the first run, where it was asked.
func said(r proof.Result) string {
	switch {
	case len(r.Runs) == 0 || r.Names == nil && r.Runs[0].Named == nil:
		return ""
	case len(r.Runs[0].Named) == 0:
		return "nothing is wrong"
	}
	return proof.Names(r.Runs[0].Named)
}
