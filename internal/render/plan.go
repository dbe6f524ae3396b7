package render

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"linger/internal/figure"
	"linger/internal/plan"
)

// PlanJSON writes a plan for a program, and for linger apply.
func PlanJSON(w io.Writer, p *plan.Plan) error {
	e := newEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

// Plan writes a plan for a person: each change with what it moves, why, and its risk.
func Plan(w io.Writer, s Style, p *plan.Plan) error {
	b := &block{style: s}
	if len(p.Changes) == 0 {
		b.headline(markOK, "nothing to change on "+p.Host.Name)
	} else {
		b.headline(mark{icon: "●", asciiIcon: "i", word: "PLAN", tone: toneInfo},
			figure.Of(len(p.Changes), "change", "changes")+" on "+p.Host.Name+"; nothing is changed yet")
	}
	for i := range p.Changes {
		b.blank()
		change(b, i+1, &p.Changes[i])
	}
	if len(p.Notes) > 0 {
		b.blank()
		b.section("NOTE")
		for _, note := range p.Notes {
			b.paragraph("", plain, note)
		}
	}
	return b.print(w)
}

func change(b *block, nth int, c *plan.Change) {
	b.full(strong, fmt.Sprintf("%d. %s · %s", nth, c.Key, c.Scope))
	b.section("SET")
	b.paragraph("", command, value(c.Old)+" → "+value(c.New))
	b.section("WHY")
	b.paragraph("", plain, c.Why)
	if b.style.Verbose {
		b.paragraph("", plain, c.Mechanism)
	}
	if len(c.Effects) > 0 {
		b.section("MOVES")
	}
	for _, e := range c.Effects {
		b.paragraph("", plain, fmt.Sprintf("%s: %s → %s, %s", e.Name, figure.Number(e.Before), figure.Quantity(e.After, e.Unit), e.When))
	}
	b.section("RISK")
	b.paragraph("", plain, c.Risk)
	if c.Forced != "" {
		b.section("FORCED")
		b.paragraph("", toneWarning, c.Forced)
	}
	if !b.style.Verbose {
		return
	}
	b.section("TOUCHES")
	b.paragraph("", plain, strings.Join(c.Dependents, "; "))
	b.section("KERNELS")
	b.paragraph("", plain, c.Kernels)
	if c.Persist != nil {
		b.section("KEEP")
		b.paragraph("", plain, c.Persist.File+": "+c.Persist.Line)
		if c.Persist.Note != "" {
			b.paragraph("", faint, c.Persist.Note)
		}
	}
}

// value is a setting for a person: no text is a value, too.
func value(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// print writes the block's lines.
func (b *block) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, line := range b.lines {
		out.WriteString(line)
		out.WriteByte('\n')
	}
	return out.Flush()
}
