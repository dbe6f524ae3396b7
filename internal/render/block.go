package render

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"

	"linger/internal/story"
)

// margin is the width of the column that holds WHO, WHY and the like.
const margin = 8

// block is text being laid out: labels in the margin, paragraphs beside them.
type block struct {
	style Style
	lines []string
	// label waits for the next line.
	label string
}

// section begins a section; its label stands beside its first line.
func (b *block) section(label string) { b.label = label }

// blank adds an empty line, unless the block begins or has just had one.
func (b *block) blank() {
	if n := len(b.lines); n > 0 && b.lines[n-1] != "" {
		b.lines = append(b.lines, "")
	}
}

// paragraph adds text beside the margin, with what leads it hanging.
func (b *block) paragraph(lead string, t story.Tone, text string) {
	indent := margin + utf8.RuneCountInString(lead)
	for i, line := range wrap(text, b.style.columns()-indent) {
		b.beside(lead, i == 0, t, line)
	}
}

// verbatim adds lines that must stay as they are, to be copied.
func (b *block) verbatim(lead string, c story.Command) {
	for i, line := range c {
		b.beside(lead, i == 0, story.ToCopy, b.style.show(line))
	}
}

// beside adds one line right of the margin and of the lead, which only the first
// line of a paragraph shows.
func (b *block) beside(lead string, first bool, t story.Tone, line string) {
	if !first {
		lead = strings.Repeat(" ", utf8.RuneCountInString(lead))
	}
	gap := strings.Repeat(" ", margin-len(b.label))
	b.lines = append(b.lines, b.style.paint(story.Strong, b.label)+gap+lead+b.style.paint(t, line))
	b.label = ""
}

// headline adds a verdict: a mark, and text that hangs behind it.
func (b *block) headline(m story.Mark, text story.Text) {
	lead := b.style.mark(m) + "  "
	indent := utf8.RuneCountInString(lead)
	for i, line := range wrap(b.style.show(text), b.style.columns()-indent) {
		if i == 0 {
			b.lines = append(b.lines, b.style.paint(m.Tone, strings.TrimRight(lead, " "))+"  "+b.style.paint(story.Strong, line))
			continue
		}
		b.lines = append(b.lines, strings.Repeat(" ", indent)+b.style.paint(story.Strong, line))
	}
}

// full adds text over the whole width.
func (b *block) full(t story.Tone, text string) {
	for _, line := range wrap(text, b.style.columns()) {
		b.lines = append(b.lines, b.style.paint(t, line))
	}
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

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(text)))
}
