package render

import (
	"fmt"
	"io"
	"strings"

	"linger/internal/figure"
	"linger/internal/proof"
)

// ProveSchema names the form of the JSON of linger prove (docs/prove.schema.json).
const ProveSchema = "linger.prove/1"

// Proved is what the laboratory measured of a plan.
type Proved struct {
	Measured
	Changes []ProvedChange `json:"changes"`
}

// ProvedChange is one change of the plan, and its proof.
type ProvedChange struct {
	// Scope is where the plan makes it.
	Scope string `json:"scope"`
	Key   string `json:"key"`
	// Old is the value of the base line, New the one of the plan.
	Old string `json:"old"`
	New string `json:"new"`
	// Verdict is empty where it could not be measured, and Cannot says why.
	Verdict proof.Verdict `json:"verdict,omitempty"`
	Because string        `json:"because,omitempty"`
	Cannot  string        `json:"cannot,omitempty"`
	// Notes say what the base line stands on.
	Notes []string    `json:"notes"`
	Proof proof.Proof `json:"proof"`
}

// ProvePrinter writes what was measured of a plan, in one form.
type ProvePrinter interface {
	PrintProved(w io.Writer, p Proved) error
}

// PrintProved writes one object, described by docs/prove.schema.json.
func (JSON) PrintProved(w io.Writer, p Proved) error {
	return newEncoder(w).Encode(p)
}

// headline says in one sentence how it came out.
func (p Proved) headline() (mark, string) {
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
	switch {
	case len(p.Changes) == 0:
		return markOK, "the plan changes nothing"
	case works < measured:
		return mark{icon: "✖", asciiIcon: "X", word: "DIFFERS", tone: toneCritical}, text
	case cannot > 0:
		return mark{icon: "?", asciiIcon: "?", word: "INCOMPLETE", tone: toneWarning}, text
	}
	return markOK, text
}

// lab is the same measurements as those of the laboratory.
func (p Proved) lab() Lab {
	l := Lab{Measured: p.Measured}
	for _, c := range p.Changes {
		l.Proofs = append(l.Proofs, c.Proof)
	}
	return l
}

// PrintProved writes each change with its verdict, and the numbers that it rests on.
func (t Text) PrintProved(w io.Writer, p Proved) error {
	var b strings.Builder
	s := t.Style
	verdict, headline := p.headline()
	fmt.Fprintf(&b, "%s  %s\n%s\n", s.paint(verdict.tone, verdict.String(s.ASCII)), headline, p.lab().where())
	for i, c := range p.Changes {
		fmt.Fprintf(&b, "\n%s\n", s.paint(strong, fmt.Sprintf("%d. %s · %s", i+1, Clean(c.Key), Clean(c.Scope))))
		fmt.Fprintf(&b, "  %s → %s\n", Clean(value(c.Old)), Clean(value(c.New)))
		for _, note := range c.Notes {
			for _, line := range wrap(Clean(note), s.width()-2) {
				fmt.Fprintf(&b, "  %s\n", s.paint(faint, line))
			}
		}
		if c.Cannot != "" {
			for _, line := range wrap(Clean(c.Cannot), s.width()-2) {
				fmt.Fprintf(&b, "  %s\n", s.paint(toneWarning, line))
			}
			continue
		}
		fmt.Fprintf(&b, "  %s\n", Clean(c.Proof.Question))
		for _, line := range wrap(Clean(c.Proof.Setup), s.width()-2) {
			fmt.Fprintf(&b, "  %s\n", s.paint(faint, line))
		}
		t.arms(&b, c.Proof)
	}
	_, err := io.WriteString(w, s.plain(b.String()))
	return err
}

// PrintProved writes a table.
func (Markdown) PrintProved(w io.Writer, p Proved) error {
	var b strings.Builder
	_, headline := p.headline()
	fmt.Fprintf(&b, "# %s\n\n%s\n\n| verdict | where | key | old | new | measured |\n|---|---|---|---|---|---|\n", headline, escape(p.lab().where()))
	for _, c := range p.Changes {
		verdict, because := verdictMark(c.Verdict).String(false), c.Because
		if c.Cannot != "" {
			verdict, because = markUnknown.String(false), c.Cannot
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", verdict, escape(c.Scope), code(c.Key), code(value(c.Old)), code(value(c.New)), escape(because))
	}
	for _, c := range p.Changes {
		if len(c.Notes) > 0 {
			fmt.Fprintf(&b, "\n%s: %s\n", code(c.Key), escape(strings.Join(c.Notes, "; ")))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
