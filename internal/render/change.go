package render

import (
	"io"
	"strings"
)

// Change is a change as it is told: its state, what it is about, and lines beside their
// labels.
type Change struct {
	// State is a word; Done tells that it is as somebody wanted it to be, Waits that it
	// is not decided yet.
	State       string
	Done, Waits bool
	Title       string
	Lines       []ChangeLine
	// Manifest is text to be copied, after all else.
	Manifest string
}

// ChangeLine is one label and its text. A command stays on one line, to be copied.
type ChangeLine struct {
	Label, Text string
	Command     bool
	// Warns: it wants attention.
	Warns bool
}

// Changes writes changes for a person, one after the other, or that there are none.
func Changes(w io.Writer, s Style, changes []Change, none string) error {
	b := &block{style: s}
	if len(changes) == 0 {
		b.full(plain, none)
	}
	for i := range changes {
		b.blank()
		b.change(&changes[i])
	}
	return b.print(w)
}

func (b *block) change(c *Change) {
	m := mark{icon: "●", asciiIcon: "i", word: strings.ToUpper(c.State), tone: toneInfo}
	switch {
	case c.Waits:
		m.icon, m.asciiIcon, m.tone = "▲", "!", toneWarning
	case c.Done:
		m.icon, m.asciiIcon, m.tone = "✔", "+", toneOK
	}
	b.headline(m, c.Title)
	for _, line := range c.Lines {
		b.section(line.Label)
		switch {
		case line.Command:
			b.verbatim("", command, Clean(line.Text)) // a second line would be another command
		case line.Warns:
			b.paragraph("", toneWarning, line.Text)
		default:
			b.paragraph("", plain, line.Text)
		}
	}
	for line := range strings.Lines(c.Manifest) {
		b.lines = append(b.lines, clean(strings.TrimRight(line, "\n"), b.style.ASCII))
	}
}
