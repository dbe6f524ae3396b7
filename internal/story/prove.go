package story

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/proof"
)

// Tried is a change of a plan, and what it did in the laboratory.
type Tried struct {
	Number          int
	Scope, Key      Text
	Old, New        Text
	Mark            Mark
	Because, Cannot Text
	Notes           []Text
	Experiment      Experiment
}

// Prove tells each change of a plan with its verdict, and the numbers that it rests on.
func Prove(p *proof.Proved) *Report {
	proofs := make([]proof.Proof, len(p.Changes))
	for i := range p.Changes {
		proofs[i] = p.Changes[i].Proof
	}
	r := newReport(&p.Measured, proofs, false)
	r.Verdict = provedVerdict(p)
	for i := range p.Changes {
		c := &p.Changes[i]
		t := Tried{
			Number: i + 1, Scope: Clean(c.Scope), Key: Clean(c.Key), Old: Clean(value(c.Old)), New: Clean(value(c.New)),
			Mark: verdictMark(c.Verdict), Because: Clean(c.Because), Cannot: Clean(c.Cannot), Notes: cleanAll(c.Notes),
			Experiment: experimentOf(&c.Proof),
		}
		if c.Cannot != "" {
			t.Mark, t.Because = markUnknown, t.Cannot
		}
		r.Changes = append(r.Changes, t)
	}
	return r
}

// provedVerdict says in one sentence how it came out.
func provedVerdict(p *proof.Proved) Headline {
	works, cannot := 0, 0
	for _, c := range p.Changes {
		switch {
		case c.Cannot != "":
			cannot++
		case c.Verdict == proof.Works:
			works++
		}
	}
	measured := len(p.Changes) - cannot
	text := fmt.Sprintf("%d of %s measured work as the plan promises", works, figure.Of(measured, "change", "changes"))
	if measured == 0 {
		text = "nothing was measured"
	}
	if cannot > 0 {
		text += fmt.Sprintf("; %d could not be", cannot)
	}
	m := markOK
	switch {
	case len(p.Changes) == 0:
		text = "the plan changes nothing"
	case works < measured:
		m = signed('✖', "DIFFERS", Critical)
	case cannot > 0:
		m = markIncomplete
	}
	return Headline{m, Clean(text)}
}
