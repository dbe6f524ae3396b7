package render

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"linger/internal/figure"
	"linger/internal/proof"
)

// LabSchema names the form of the laboratory's JSON.
const LabSchema = "linger.lab/1"

// Measured says where and when a laboratory measured; it begins each of its documents.
type Measured struct {
	Schema    string    `json:"schema"`
	TakenAt   time.Time `json:"taken_at"`
	ElapsedMS int64     `json:"elapsed_ms"`
	Kernel    string    `json:"kernel"`
	CPUs      int       `json:"cpus"`
}

// Lab is what a run of the laboratory measured.
type Lab struct {
	Measured
	Quick  bool          `json:"quick"`
	Proofs []proof.Proof `json:"proofs"`
}

// LabPrinter writes what a laboratory measured, in one form.
type LabPrinter interface {
	PrintLab(w io.Writer, l Lab) error
}

// PrintLab writes one object, described by docs/lab.schema.json.
func (JSON) PrintLab(w io.Writer, l Lab) error {
	return newEncoder(w).Encode(l)
}

// labTally counts verdicts and what was not as expected.
type labTally struct {
	variants, unexpected, cannot int
}

func (l Lab) tally() (t labTally) {
	for _, p := range l.Proofs {
		if p.Cannot != "" {
			t.cannot++
			continue
		}
		for i, r := range p.All() {
			if i > 0 {
				t.variants++
			}
			if r.Cannot != "" {
				t.cannot++
			}
			if len(r.Unexpected) > 0 {
				t.unexpected++
			}
		}
	}
	return t
}

// headline says in one sentence how it came out.
func (l Lab) headline() string {
	t := l.tally()
	text := fmt.Sprintf("%s and %s measured", figure.Of(len(l.Proofs), "experiment", "experiments"), figure.Of(t.variants, "variant", "variants"))
	if t.unexpected == 0 {
		text += ", all as expected"
	} else {
		text += fmt.Sprintf(", %d not as expected", t.unexpected)
	}
	if t.cannot > 0 {
		text += fmt.Sprintf(", %d could not run", t.cannot)
	}
	return text
}

// where says on what it was measured.
func (l Lab) where() string {
	runs := 0
	for _, p := range l.Proofs {
		runs = max(runs, len(p.Base.Runs))
	}
	text := fmt.Sprintf("Linux %s · %s · %s of each arm · %s", l.Kernel, figure.Of(l.CPUs, "CPU", "CPUs"), figure.Of(runs, "run", "runs"), figure.Elapsed(time.Duration(l.ElapsedMS)*time.Millisecond))
	if l.Quick {
		text += " · quick"
	}
	return text
}

// markOfResult is that of its verdict, where there can be one.
func markOfResult(r proof.Result) mark {
	if r.Cannot != "" || r.Kind != "" && r.Verdict == "" {
		return mark{icon: "?", asciiIcon: "?", word: "unknown", tone: toneWarning}
	}
	return verdictMark(r.Verdict)
}

// verdictMark is the sign and tone of a verdict.
func verdictMark(v proof.Verdict) mark {
	switch v {
	case proof.Works:
		return mark{icon: "✔", asciiIcon: "+", word: string(v), tone: toneOK}
	case proof.Harmful:
		return mark{icon: "✖", asciiIcon: "X", word: string(v), tone: toneCritical}
	case proof.NoEffect:
		return mark{icon: "○", asciiIcon: "o", word: string(v), tone: faint}
	case proof.NotShown:
		return mark{icon: "?", asciiIcon: "?", word: string(v), tone: toneWarning}
	}
	return mark{icon: "·", asciiIcon: ".", word: "base line", tone: strong}
}

// goal is the spread of what a proof is about, in one of its arms.
func goal(p proof.Proof, r proof.Result) (proof.Interval, bool) {
	if len(p.Quantities) == 0 {
		return proof.Interval{}, false
	}
	return r.Spread(p.Quantities[0].Name)
}

// scale is the largest value of the goal in any arm.
func scale(p proof.Proof) float64 {
	most := 0.0
	for _, r := range p.All() {
		if g, ok := goal(p, r); ok {
			most = max(most, g.High)
		}
	}
	return most
}

// labBar is how wide the largest bar is, in columns.
const labBar = 20

func (s Style) bar(value, most float64) string {
	n := 0
	if most > 0 {
		n = int(math.Round(value / most * labBar))
	}
	if value > 0 {
		n = max(n, 1)
	}
	full, empty := "█", "·"
	if s.ASCII {
		full, empty = "#", "."
	}
	return strings.Repeat(full, n) + strings.Repeat(empty, labBar-n)
}

// PrintLab writes each experiment with a bar for each of its arms.
func (t Text) PrintLab(w io.Writer, l Lab) error {
	var b strings.Builder
	s := t.Style
	verdict := markOK
	if sums := l.tally(); sums.unexpected > 0 {
		verdict = mark{icon: "✖", asciiIcon: "X", word: "UNEXPECTED", tone: toneCritical}
	} else if sums.cannot > 0 {
		verdict = mark{icon: "?", asciiIcon: "?", word: "INCOMPLETE", tone: toneWarning}
	}
	fmt.Fprintf(&b, "%s  %s\n%s\n", s.paint(verdict.tone, verdict.String(s.ASCII)), l.headline(), l.where())
	for _, p := range l.Proofs {
		fmt.Fprintf(&b, "\n%s  %s\n%s\n", s.paint(strong, p.Experiment), p.Title, strings.Join(wrap(p.Question, s.width()), "\n"))
		if p.Cannot != "" {
			fmt.Fprintf(&b, "  cannot run here: %s\n", p.Cannot)
			continue
		}
		for _, line := range wrap(p.Setup, s.width()-2) {
			fmt.Fprintf(&b, "  %s\n", s.paint(faint, line))
		}
		t.arms(&b, p)
	}
	_, err := io.WriteString(w, s.plain(b.String()))
	return err
}

// arms writes each arm with its verdict and a bar.
func (t Text) arms(b *strings.Builder, p proof.Proof) {
	s := t.Style
	q, most := p.Quantities[0], scale(p)
	told := "  bars: " + q.Title
	if q.Better != "" {
		told += fmt.Sprintf(" (%s is better)", q.Better)
	}
	fmt.Fprintf(b, "%s\n", s.paint(faint, told))
	for _, r := range p.All() {
		m := markOfResult(r)
		fmt.Fprintf(b, "  %s", s.paint(m.tone, fmt.Sprintf("%-11s", m.String(s.ASCII))))
		if r.Cannot != "" {
			fmt.Fprintf(b, "  %s\n               cannot run here: %s\n", Clean(r.Title), Clean(r.Cannot))
			continue
		}
		if g, ok := goal(p, r); ok {
			fmt.Fprintf(b, "  %s %s %s", s.bar(g.Median, most), g, q.Unit)
		}
		b.WriteByte('\n')
		what := r.Title
		if r.Kind != "" {
			what += fmt.Sprintf(" (%s: %s)", r.Kind, r.How)
		}
		t.below(b, plain, what)
		if len(r.Runs) > 0 {
			for _, c := range r.Runs[0].Series {
				fmt.Fprintf(b, "               %s %s\n", s.sparkline(resample(c, 40)), c.Name)
			}
		}
		if says := said(r); says != "" {
			t.below(b, plain, "linger says: "+says)
		}
		if r.Verdict == proof.Harmful {
			t.below(b, plain, r.Because)
		}
		if r.Note != "" {
			t.below(b, faint, r.Note)
		}
		for _, u := range r.Unexpected {
			t.below(b, toneCritical, "NOT AS EXPECTED: "+u)
		}
	}
}

// below writes text under the bar of an arm, as wide as the terminal is.
func (t Text) below(b *strings.Builder, tone tone, text string) {
	const indent = 15
	for _, line := range wrap(Clean(text), t.Style.width()-indent) {
		fmt.Fprintf(b, "%*s%s\n", indent, "", t.Style.paint(tone, line))
	}
}

// plain writes for a locale that is not UTF-8 what a terminal of it shows.
func (s Style) plain(text string) string {
	if !s.ASCII {
		return text
	}
	return strings.NewReplacer("→", "->", "–", "-", "·", "-", "µ", "u").Replace(text)
}

// resample is a curve at n equal steps of its x, each the last value before it.
func resample(c proof.Series, n int) []float64 {
	if len(c.X) == 0 {
		return nil
	}
	out := make([]float64, n)
	first, last := c.X[0], c.X[len(c.X)-1]
	at := 0
	for i := range out {
		x := first + (last-first)*float64(i)/float64(n-1)
		for at+1 < len(c.X) && c.X[at+1] <= x {
			at++
		}
		out[i] = c.Y[at]
	}
	return out
}

// PrintLab writes a table for each experiment.
func (Markdown) PrintLab(w io.Writer, l Lab) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", l.headline(), escape(l.where()))
	for _, p := range l.Proofs {
		fmt.Fprintf(&b, "\n## %s: %s\n\n%s\n", p.Experiment, escape(p.Title), escape(p.Question))
		if p.Cannot != "" {
			fmt.Fprintf(&b, "\nCannot run here: %s\n", escape(p.Cannot))
			continue
		}
		fmt.Fprintf(&b, "\n%s\n\n| verdict | what | how |", escape(p.Setup))
		for _, q := range p.Quantities {
			fmt.Fprintf(&b, " %s (%s) |", escape(q.Title), escape(q.Unit))
		}
		b.WriteString("\n|---|---|---|" + strings.Repeat("---:|", len(p.Quantities)) + "\n")
		for _, r := range p.All() {
			fmt.Fprintf(&b, "| %s | %s | %s |", markOfResult(r).String(false), escape(r.Title), code(r.How))
			for _, q := range p.Quantities {
				value := "" // not measured
				if i, ok := r.Spread(q.Name); ok {
					value = i.String()
				}
				fmt.Fprintf(&b, " %s |", value)
			}
			b.WriteByte('\n')
		}
		for _, r := range p.All() {
			if says := said(r); says != "" {
				fmt.Fprintf(&b, "\n%s: linger says: %s\n", escape(r.Title), escape(says))
			}
			for _, u := range r.Unexpected {
				fmt.Fprintf(&b, "\n**Not as expected:** %s: %s\n", r.ID, escape(u))
			}
			if r.Cannot != "" {
				fmt.Fprintf(&b, "\n**Could not run:** %s: %s\n", r.ID, escape(r.Cannot))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
