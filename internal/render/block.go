package render

import (
	"strings"
	"unicode/utf8"
)

// margin is the width of the column that holds WHO, WHY and the like.
const margin = 8

// block is text being laid out: labels in the margin, paragraphs beside them.
// All that goes in is made clean here, so nothing reaches a terminal otherwise.
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
func (b *block) paragraph(lead string, t tone, text string) {
	indent := margin + utf8.RuneCountInString(lead)
	for i, line := range wrap(clean(text, b.style.ASCII), b.style.width()-indent) {
		b.beside(lead, i == 0, t, line)
	}
}

// verbatim adds lines that must stay as they are, to be copied.
func (b *block) verbatim(lead string, t tone, text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		line = strings.NewReplacer("\t", "    ", string(noBreak), " ").Replace(line)
		b.beside(lead, i == 0, t, clean(line, b.style.ASCII))
	}
}

// beside adds one line right of the margin and of the lead, which only the first
// line of a paragraph shows.
func (b *block) beside(lead string, first bool, t tone, line string) {
	if !first {
		lead = strings.Repeat(" ", utf8.RuneCountInString(lead))
	}
	gap := strings.Repeat(" ", margin-len(b.label))
	b.lines = append(b.lines, b.style.paint(strong, b.label)+gap+lead+b.style.paint(t, line))
	b.label = ""
}

// headline adds a verdict: a mark, and text that hangs behind it.
func (b *block) headline(m mark, text string) {
	lead := m.String(b.style.ASCII) + "  "
	indent := utf8.RuneCountInString(lead)
	for i, line := range wrap(clean(text, b.style.ASCII), b.style.width()-indent) {
		if i == 0 {
			b.lines = append(b.lines, b.style.paint(m.tone, strings.TrimRight(lead, " "))+"  "+b.style.paint(strong, line))
			continue
		}
		b.lines = append(b.lines, strings.Repeat(" ", indent)+b.style.paint(strong, line))
	}
}

// full adds text over the whole width.
func (b *block) full(t tone, text string) {
	for _, line := range wrap(clean(text, b.style.ASCII), b.style.width()) {
		b.lines = append(b.lines, b.style.paint(t, line))
	}
}

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(text)))
}

// Indented is text in lines that begin with so many spaces.
func (s Style) Indented(indent int, text string) string {
	var b strings.Builder
	for _, line := range wrap(clean(text, s.ASCII), s.width()-indent) {
		b.WriteString(strings.Repeat(" ", indent) + line + "\n")
	}
	return b.String()
}
