package render

import (
	"io"
	"strings"
	"unicode/utf8"

	"linger/internal/story"
)

// PrintExam writes a table, and of each miss what was built and how to build it again.
func (t Text) PrintExam(w io.Writer, e *story.Exam) error {
	const mark, built = 11, 21 // columns
	l := &lines{style: t.Style}
	show := t.Style.show
	l.verdict(e.Verdict, e.Where)
	seeds := 0
	for _, b := range e.Builds {
		seeds = max(seeds, utf8.RuneCountInString(show(b.Seed)))
	}
	column := func(seed string) string {
		if seeds == 0 {
			return ""
		}
		return pad(seed, max(seeds, len("SEED"))) + "  "
	}
	l.line("\n" + t.Style.paint(story.Strong, strings.Repeat(" ", mark+2)+column("SEED")+pad("BUILT", built)+"  NAMED"))
	for i := range e.Builds {
		b := &e.Builds[i]
		named := show(b.Named)
		if b.Absent {
			named = ""
		}
		row := column(show(b.Seed)) + pad(show(b.Built), built) + "  " + named
		l.line(t.Style.paint(b.Mark.Tone, pad(t.Style.mark(b.Mark), mark)) + "  " + strings.TrimRight(row, " "))
		told := show(b.Told)
		if !b.Again.IsZero() {
			told += "; " + show(b.Again)
		}
		if told != "" {
			l.beneath(mark+2, story.Plain, told)
		}
	}
	_, err := io.WriteString(w, l.String())
	return err
}

// PrintExam writes a table.
func (Markdown) PrintExam(w io.Writer, e *story.Exam) error {
	m := newTicket(w)
	m.line("# %s\n\n%s\n\n| | seed | built | named | cured | |\n|---|---:|---|---|---|---|", e.Verdict.Text, escape(e.Where))
	for _, b := range e.Builds {
		m.line("| %s | %s | %s | %s | %s | %s |", word(b.Mark), escape(b.Seed), escape(b.Built), escape(b.Named), escape(b.Cured), escape(b.Told))
	}
	return m.out.Flush()
}
