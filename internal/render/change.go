package render

import (
	"io"
	"strings"

	"linger/internal/story"
)

// Account is a change as it is told: its state, what it is about, and lines beside their
// labels.
type Account struct {
	// State is a word; Done tells that it is as somebody wanted it to be, Waits that it
	// is not decided yet.
	State       string
	Done, Waits bool
	Title       string
	Lines       []AccountLine
	// Manifest is text to be copied, after all else.
	Manifest string
}

// AccountLine is one label and its text. A command stays on one line, to be copied.
type AccountLine struct {
	Label, Text string
	Command     bool
	// Warns: it wants attention.
	Warns bool
}

// Changes writes changes for a person, one after the other, or that there are none.
func Changes(w io.Writer, s Style, changes []Account, none string) error {
	b := &block{style: s}
	if len(changes) == 0 {
		b.full(story.Plain, s.show(story.Clean(none)))
	}
	for i := range changes {
		b.blank()
		b.accountOf(&changes[i])
	}
	return b.print(w)
}

func (b *block) accountOf(c *Account) {
	m := story.Mark{Sign: '●', Word: story.Clean(strings.ToUpper(c.State)), Tone: story.Info}
	switch {
	case c.Waits:
		m.Sign, m.Tone = '▲', story.Warning
	case c.Done:
		m.Sign, m.Tone = '✔', story.Fine
	}
	b.headline(m, story.Clean(c.Title))
	for _, line := range c.Lines {
		b.section(line.Label)
		switch {
		case line.Command:
			b.verbatim("", story.Copied(story.Clean(line.Text).String())) // a second line would be another command
		case line.Warns:
			b.paragraph("", story.Warning, b.style.show(story.Clean(line.Text)))
		default:
			b.paragraph("", story.Plain, b.style.show(story.Clean(line.Text)))
		}
	}
	for line := range strings.Lines(c.Manifest) {
		b.lines = append(b.lines, b.style.show(story.Clean(strings.TrimRight(line, "\n"))))
	}
}
