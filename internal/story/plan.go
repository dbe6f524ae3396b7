package story

import (
	"fmt"
	"strings"

	"linger/internal/figure"
	"linger/internal/plan"
)

// Plan tells each change with what it moves, why, and its risk.
func Plan(p *plan.Plan) *Story {
	s := &Story{Verdict: Headline{markOK, Clean("nothing to change on " + p.Host.Name)}}
	if len(p.Changes) > 0 {
		changes := figure.Of(len(p.Changes), "change", "changes")
		s.Verdict = Headline{signed('●', "PLAN", Info), Clean(changes + " on " + p.Host.Name + "; nothing is changed yet")}
	}
	for i := range p.Changes {
		s.Parts.Parts = append(s.Parts.Parts, planned(i+1, &p.Changes[i]))
	}
	if len(p.Notes) > 0 {
		s.Sections = append(s.Sections, Section{Label: Label{Short: "NOTE"}, Items: items(Item{}, p.Notes...)})
	}
	return s
}

// items are texts that are said alike.
func items(like Item, texts ...string) []Item {
	out := make([]Item, len(texts))
	for i, text := range texts {
		out[i] = like
		out[i].Text = Clean(text)
	}
	return out
}

// planned tells one change.
func planned(number int, c *plan.Change) Part {
	p := Part{Title: Clean(fmt.Sprintf("%d. %s · %s", number, c.Key, c.Scope))}
	say := func(label string, items ...Item) {
		p.Sections = append(p.Sections, Section{Label: Label{Short: label}, Items: items})
	}
	text := func(rank Rank, tone Tone, text string) Item { return Item{Rank: rank, Tone: tone, Text: Clean(text)} }
	say("SET", text(Always, ToCopy, value(c.Old)+" → "+value(c.New)))
	say("WHY", text(Always, Plain, c.Why), text(Whole, Plain, c.Mechanism))
	var moves []string
	for _, e := range c.Effects {
		moves = append(moves, fmt.Sprintf("%s: %s → %s, %s", e.Name, figure.Number(e.Before), figure.Quantity(e.After, e.Unit), e.When))
	}
	say("MOVES", items(Item{}, moves...)...)
	say("RISK", text(Always, Plain, c.Risk))
	if c.Forced != "" {
		say("FORCED", text(Always, Warning, c.Forced))
	}
	say("TOUCHES", text(Whole, Plain, strings.Join(c.Dependents, "; ")))
	say("KERNELS", text(Whole, Plain, c.Kernels))
	if c.Persist != nil {
		say("KEEP", text(Whole, Plain, c.Persist.File+": "+c.Persist.Line))
		if c.Persist.Note != "" {
			say("", text(Whole, Faint, c.Persist.Note))
		}
	}
	return p
}

// value is a setting for a person: no text is a value, too.
func value(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
