package story

import (
	"cmp"
	"slices"
	"strings"

	"linger/internal/proof"
)

// verdicts in the order in which they are told.
var verdicts = []proof.Verdict{proof.Works, proof.NoEffect, proof.Harmful, proof.NotShown}

// Answers are what all experiments together say.
type Answers struct {
	Tiles []Tile
	// Knobs are what folklore turns in more than one experiment, the one that is turned
	// most first.
	Knobs    []Knob
	Cures    []Answer
	Folklore []Answer
}

// Tile counts the variants of one verdict.
type Tile struct {
	Mark  Mark
	Count int
	Means Text
}

// Answer is what one variant, or what several of one experiment, came to.
type Answer struct {
	Mark Mark
	// Experiment is the name of the experiment, Question its title.
	Experiment, Question Text
	Title, How, Because  Text
}

// Knob is something that can be set, and what it did wherever it was tried: by verdict,
// each experiment once.
type Knob struct {
	Name  Text
	Tried []Trial
}

// Trial is where a knob had one verdict.
type Trial struct {
	Mark    Mark
	Answers []Answer
}

func answersOf(proofs []proof.Proof) Answers {
	return Answers{
		Tiles: tilesOf(proofs), Knobs: knobsOf(proofs),
		// A cure that only repeats one over IPv6 is no other cure.
		Cures:    answersWhere(proofs, func(r *proof.Result) bool { return r.Kind == proof.Remedy && r.Verdict == proof.Works && !r.OverIPv6 }),
		Folklore: answersWhere(proofs, func(r *proof.Result) bool { return r.Kind == proof.Folklore }),
	}
}

func tilesOf(proofs []proof.Proof) (tiles []Tile) {
	means := map[proof.Verdict]string{
		proof.Works:    "it got better, and nothing got worse",
		proof.NoEffect: "as without it",
		proof.Harmful:  "it, or something else, got worse",
		proof.NotShown: "noise hides what it does",
	}
	for _, v := range verdicts {
		tiles = append(tiles, Tile{verdictMark(v), len(variants(proofs, func(r *proof.Result) bool { return r.Verdict == v })), Clean(means[v])})
	}
	return tiles
}

// variant is one that was judged, and the proof that it is of.
type variant struct {
	*proof.Proof
	*proof.Result
}

func variants(proofs []proof.Proof, wanted func(*proof.Result) bool) (all []variant) {
	for i := range proofs {
		p := &proofs[i]
		for n := range p.Variants {
			if r := &p.Variants[n]; r.Cannot == "" && r.Verdict != "" && wanted(r) {
				all = append(all, variant{p, r})
			}
		}
	}
	return all
}

func (v variant) answer() Answer {
	return Answer{
		Mark: verdictMark(v.Verdict), Experiment: Clean(v.Experiment), Question: Clean(v.Proof.Title),
		Title: Clean(v.Result.Title), How: Clean(v.How), Because: Clean(v.Because),
	}
}

func answersWhere(proofs []proof.Proof, wanted func(*proof.Result) bool) (all []Answer) {
	for _, v := range variants(proofs, wanted) {
		all = append(all, v.answer())
	}
	return all
}

func knobsOf(proofs []proof.Proof) (knobs []Knob) {
	tried, folkloric := map[string][]variant{}, map[string]bool{}
	var names []string
	for _, v := range variants(proofs, func(r *proof.Result) bool { return r.Knob != "" }) {
		if tried[v.Knob] == nil {
			names = append(names, v.Knob)
		}
		tried[v.Knob] = append(tried[v.Knob], v)
		folkloric[v.Knob] = folkloric[v.Knob] || v.Kind == proof.Folklore
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(tried[b]), len(tried[a])), cmp.Compare(a, b)) })
	for _, name := range names {
		if !folkloric[name] || len(tried[name]) < 2 {
			continue
		}
		k := Knob{Name: Clean(name)}
		for _, v := range verdicts {
			if same := once(tried[name], v); len(same) > 0 {
				k.Tried = append(k.Tried, Trial{verdictMark(v), same})
			}
		}
		knobs = append(knobs, k)
	}
	return knobs
}

// once are the answers of one verdict, the first of each experiment.
func once(all []variant, verdict proof.Verdict) (some []Answer) {
	seen := map[string]bool{}
	for _, v := range all {
		if v.Verdict == verdict && !seen[v.Experiment] {
			seen[v.Experiment] = true
			some = append(some, v.answer())
		}
	}
	return some
}

// verdictsOf gathers what has the same verdict in one experiment.
func verdictsOf(p *proof.Proof) (all []Answer) {
	for _, v := range verdicts {
		var titles []string
		for _, r := range p.Variants {
			if r.Cannot == "" && r.Verdict == v {
				titles = append(titles, r.Title)
			}
		}
		if len(titles) > 0 {
			all = append(all, Answer{Mark: verdictMark(v), Title: Clean(strings.Join(titles, "; "))})
		}
	}
	return all
}
