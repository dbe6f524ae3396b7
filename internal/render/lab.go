package render

import (
	"fmt"
	"io"
	"math"
	"strings"

	"linger/internal/story"
)

// LabSchema names the form of the laboratory's JSON (docs/lab.schema.json), ProveSchema
// that of what it measured of a plan (docs/prove.schema.json), ScoreSchema that of scores
// (docs/score.schema.json).
const (
	LabSchema   = "linger.lab/1"
	ProveSchema = "linger.prove/1"
	ScoreSchema = "linger.score/1"
)

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

// lines is text being written line by line.
type lines struct {
	style Style
	strings.Builder
}

func (l *lines) line(text string) { l.WriteString(text + "\n") }

// beneath writes text below another, as wide as the terminal is.
func (l *lines) beneath(indent int, tone story.Tone, text string) {
	for _, line := range wrap(text, l.style.columns()-indent) {
		l.line(strings.Repeat(" ", indent) + l.style.paint(tone, line))
	}
}

// verdict writes the first two lines.
func (l *lines) verdict(v story.Headline, where story.Text) {
	l.line(l.style.paint(v.Mark.Tone, l.style.mark(v.Mark)) + "  " + l.style.show(v.Text))
	l.line(l.style.show(where))
}

// PrintReport writes each experiment, or each change of a plan, with a bar for each of its
// arms.
func (t Text) PrintReport(w io.Writer, r *story.Report) error {
	l := &lines{style: t.Style}
	show := t.Style.show
	l.verdict(r.Verdict, r.Where)
	for i := range r.Experiments {
		e := &r.Experiments[i]
		l.line("\n" + t.Style.paint(story.Strong, show(e.Name)) + "  " + show(e.Title))
		l.beneath(0, story.Plain, show(e.Question))
		if !e.Cannot.IsZero() {
			l.line("  cannot run here: " + show(e.Cannot))
			continue
		}
		l.beneath(2, story.Faint, show(e.Setup))
		t.arms(l, e)
	}
	for i := range r.Changes {
		t.tried(l, &r.Changes[i])
	}
	_, err := io.WriteString(w, l.String())
	return err
}

// tried writes a change of a plan.
func (t Text) tried(l *lines, c *story.Tried) {
	show := t.Style.show
	l.line("\n" + t.Style.paint(story.Strong, fmt.Sprintf("%d. %s%s%s", c.Number, show(c.Key), t.Style.spell(" · "), show(c.Scope))))
	l.line("  " + show(c.Old) + t.Style.spell(" → ") + show(c.New))
	for _, note := range c.Notes {
		l.beneath(2, story.Faint, show(note))
	}
	if !c.Cannot.IsZero() {
		l.beneath(2, story.Warning, show(c.Cannot))
		return
	}
	l.line("  " + show(c.Experiment.Question))
	l.beneath(2, story.Faint, show(c.Experiment.Setup))
	t.arms(l, &c.Experiment)
}

// arms writes each arm with its verdict and a bar.
func (t Text) arms(l *lines, e *story.Experiment) {
	const indent = 15
	s := t.Style
	q := e.Measures[0]
	told := "  bars: " + s.show(q.Title)
	if !q.Better.IsZero() {
		told += " (" + s.show(q.Better) + " is better)"
	}
	l.line(s.paint(story.Faint, told))
	for i := range e.Arms {
		a := &e.Arms[i]
		l.WriteString("  " + s.paint(a.Mark.Tone, pad(s.mark(a.Mark), 11)))
		if !a.Cannot.IsZero() {
			l.line("  " + s.show(a.Title))
			l.line(strings.Repeat(" ", indent) + "cannot run here: " + s.show(a.Cannot))
			continue
		}
		if a.Goal != nil {
			l.WriteString("  " + s.bar(a.Goal.Median, a.Goal.Most) + " " + s.show(a.Goal.Text) + " " + s.show(q.Unit))
		}
		l.line("")
		what := s.show(a.Title)
		if a.Variant {
			what += " (" + s.show(a.Kind) + ": " + s.show(a.How) + ")"
		}
		l.beneath(indent, story.Plain, what)
		for _, c := range a.Curves {
			l.line(strings.Repeat(" ", indent) + s.sparkline(resample(&c, 2*labBar)) + " " + s.show(c.Name))
		}
		if !a.Says.IsZero() {
			l.beneath(indent, story.Plain, "linger says: "+s.show(a.Says))
		}
		if a.Harmful {
			l.beneath(indent, story.Plain, s.show(a.Because))
		}
		if !a.Note.IsZero() {
			l.beneath(indent, story.Faint, s.show(a.Note))
		}
		for _, u := range a.Unexpected {
			l.beneath(indent, story.Critical, "NOT AS EXPECTED: "+s.show(u))
		}
	}
}

// resample is a curve at n equal steps of its x, each the last value before it.
func resample(c *story.Curve, n int) []float64 {
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

// PrintReport writes a table for each experiment, or one of all changes of a plan.
func (Markdown) PrintReport(w io.Writer, r *story.Report) error {
	m := newTicket(w)
	m.line("# %s\n\n%s", r.Verdict.Text, escape(r.Where))
	if r.Changes != nil {
		m.tried(r.Changes)
	}
	for i := range r.Experiments {
		m.experiment(&r.Experiments[i])
	}
	return m.out.Flush()
}

func (m *ticket) tried(changes []story.Tried) {
	m.line("\n| verdict | where | key | old | new | measured |\n|---|---|---|---|---|---|")
	for _, c := range changes {
		m.line("| %s | %s | %s | %s | %s | %s |", word(c.Mark), escape(c.Scope), inCell(c.Key), inCell(c.Old), inCell(c.New), escape(c.Because))
	}
	for _, c := range changes {
		if len(c.Notes) == 0 {
			continue
		}
		notes := make([]string, len(c.Notes))
		for i, note := range c.Notes {
			notes[i] = escape(note)
		}
		m.line("\n%s: %s", code(story.Command{c.Key}), strings.Join(notes, "; "))
	}
}

// word is a mark in a table.
func word(m story.Mark) string { return string(m.Sign) + " " + escape(m.Word) }

// inCell is a code span in a table.
func inCell(t story.Text) string { return cell(code(story.Command{t})) }

func (m *ticket) experiment(e *story.Experiment) {
	m.line("\n## %s: %s\n\n%s", escape(e.Name), escape(e.Title), escape(e.Question))
	if !e.Cannot.IsZero() {
		m.line("\nCannot run here: %s", escape(e.Cannot))
		return
	}
	head := "| verdict | what | how |"
	for _, q := range e.Measures {
		head += fmt.Sprintf(" %s (%s) |", escape(q.Title), escape(q.Unit))
	}
	m.line("\n%s\n\n%s\n|---|---|---|%s", escape(e.Setup), head, strings.Repeat("---:|", len(e.Measures)))
	for _, a := range e.Arms {
		row := fmt.Sprintf("| %s | %s | %s |", word(a.Mark), escape(a.Title), inCell(a.How))
		for _, value := range a.Values {
			row += fmt.Sprintf(" %s |", escape(value))
		}
		m.line("%s", row)
	}
	for _, a := range e.Arms {
		if !a.Says.IsZero() {
			m.line("\n%s: linger says: %s", escape(a.Title), escape(a.Says))
		}
		for _, u := range a.Unexpected {
			m.line("\n**Not as expected:** %s: %s", escape(a.ID), escape(u))
		}
		if !a.Cannot.IsZero() {
			m.line("\n**Could not run:** %s: %s", escape(a.ID), escape(a.Cannot))
		}
	}
}
