package render

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"linger/internal/figure"
	"linger/internal/story"
)

// Markdown lays a story out for a ticket: GitHub's Markdown, with everything that a page
// tells.
type Markdown struct{}

// Print writes the story.
func (Markdown) Print(w io.Writer, s *story.Story) error {
	m := newTicket(w)
	m.line("# linger: %s", escape(s.Title))
	if !s.Head.At.IsZero() {
		m.head(&s.Head)
	}
	for _, parts := range [][]story.Part{s.Parts.Parts, s.Notes.Parts} {
		for i := range parts {
			m.part(&parts[i], "##")
		}
	}
	for i := range s.Sections {
		if items := m.told(&s.Sections[i]); len(items) > 0 {
			m.line("\n## %s\n", s.Sections[i].Label.Long)
			m.list(items)
		}
	}
	return m.out.Flush()
}

// ticket keeps the first error in its writer, which Flush returns.
type ticket struct {
	out  *bufio.Writer
	much ranks
}

func newTicket(w io.Writer) *ticket {
	return &ticket{out: bufio.NewWriter(w), much: upTo(story.Whole)}
}

func (m *ticket) line(format string, args ...any) { fmt.Fprintf(m.out, format+"\n", args...) }

func (m *ticket) head(h *story.Head) {
	counts := make([]string, len(h.Counts))
	for i, count := range h.Counts {
		counts[i] = count.String()
	}
	m.line("\n%s, kernel %s, %s: %s.", escape(h.Host), escape(h.Kernel),
		h.At.UTC().Format("2006-01-02 15:04:05 UTC"), strings.Join(counts, ", "))
}

// told are the items of a section that a page tells; what stands above a part is told
// again, for a reader may begin anywhere.
func (m *ticket) told(s *story.Section) []story.Item {
	var items []story.Item
	for _, it := range s.Items {
		it.Again = false
		if m.much.tells(&it) {
			items = append(items, it)
		}
	}
	return items
}

// part tells a part: its reason first, which needs no title.
func (m *ticket) part(p *story.Part, level string) {
	m.line("\n%s %s: %s\n", level, escape(p.Mark.Word), escape(p.Title))
	if !p.Lead.IsZero() {
		m.line("**%s**\n", escape(p.Lead))
	}
	var reason []string
	for i := range p.Sections {
		if p.Sections[i].Label.Long != "" {
			continue
		}
		for _, it := range m.told(&p.Sections[i]) {
			if !it.Text.IsZero() {
				reason = append(reason, escape(fullOf(&it)))
			}
		}
	}
	m.line("%s", strings.Join(reason, " "))
	for i := range p.Sections {
		m.section(&p.Sections[i])
	}
	if len(p.Attached) > 0 {
		m.line("\n%s", codeBlock(p.Attached))
	}
	for i := range p.Related {
		m.part(&p.Related[i], level+"#")
	}
}

func (m *ticket) section(s *story.Section) {
	items := m.told(s)
	switch {
	case len(items) == 0:
	case items[0].Way != nil:
		m.line("\n%s:", s.Label.Long)
		for i := range items {
			m.way(items[i].Way)
		}
	case s.Label.Long == "":
		m.numbers(items)
	default:
		m.line("\n%s:\n", s.Label.Long)
		m.list(items)
	}
}

// fullOf is the whole of an item's text.
func fullOf(it *story.Item) story.Text {
	if it.Full.IsZero() {
		return it.Text
	}
	return it.Full
}

func (m *ticket) list(items []story.Item) {
	for i := range items {
		switch it := &items[i]; {
		case it.Command != nil:
			m.line("- %s", code(it.Command))
		case it.Name.IsZero():
			m.line("- %s", escape(fullOf(it)))
		default:
			m.line("- **%s**%s: %s", escape(it.Name), escape(it.Where), escape(fullOf(it)))
		}
	}
}

// numbers are the items that have one.
func (m *ticket) numbers(items []story.Item) {
	begun := false
	for i := range items {
		q := items[i].Quantity
		if q == nil {
			continue
		}
		if !begun {
			m.line("\n| number | value | limit | check by hand |\n|---|---|---|---|")
			begun = true
		}
		most := ""
		if q.Limit != nil {
			most = figure.Count(*q.Limit)
		}
		m.line("| %s | %s %s | %s | %s |", escape(items[i].Name), figure.Count(q.Value), escape(q.Unit), most, cell(code(q.Check)))
	}
}

// cell is Markdown that stands in a table, where a pipe would end the cell, in a code span
// as well.
func cell(markdown string) string { return strings.ReplaceAll(markdown, "|", `\|`) }

func (m *ticket) way(w *story.Way) {
	lead := fmt.Sprintf("%d. ", w.Number)
	indent := strings.Repeat(" ", len(lead))
	m.line("\n%s**%s**", lead, escape(w.Title))
	if !w.ChangeInFull.IsZero() {
		m.line("%s%s", indent, escape(w.ChangeInFull))
	}
	for _, e := range w.Examples {
		m.line("\n%s%s: %s", indent, escape(e.Program), code(e.Line))
	}
	if len(w.Now) > 0 {
		m.line("\n%sNow: %s", indent, code(w.Now))
	}
	if w.Keep != nil {
		m.line("\n%sFor ever, in %s: %s", indent, escape(w.Keep.File), code(w.Keep.Line))
		if !w.Keep.Note.IsZero() {
			m.line("%s(%s)", indent, escape(w.Keep.Note))
		}
	}
	var price []string
	for _, p := range w.Price {
		if !p.Sentence.IsZero() {
			price = append(price, escape(p.Sentence))
		}
	}
	m.line("\n%s%s", indent, strings.Join(price, " "))
}

// escape makes one line of plain text of what a process or a file may have named:
// nothing of it is read as Markdown or HTML (CommonMark 2.4).
func escape(t story.Text) string {
	text := strings.ReplaceAll(t.String(), string(story.NoBreak), " ")
	var b strings.Builder
	start := true // of the text: a number or a dash there would begin a list
	for _, r := range text {
		switch {
		case start && strings.ContainsRune("-=.)", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case strings.ContainsRune("\\`*_[]#+!|~>$@", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
		start = start && (r >= '0' && r <= '9' || r == ' ')
	}
	return b.String()
}

// code is a code span of one line, fenced by more backquotes than it holds.
func code(c story.Command) string {
	text := joined(c, " ")
	if strings.TrimSpace(text) == "" {
		return ""
	}
	fence := fenceOf(text, 1)
	return fence + " " + text + " " + fence
}

// codeBlock is code of several lines.
func codeBlock(c story.Command) string {
	text := joined(c, "\n")
	fence := fenceOf(text, 3)
	return fence + "\n" + text + "\n" + fence
}

func joined(c story.Command, by string) string {
	lines := make([]string, len(c))
	for i, line := range c {
		lines[i] = line.String()
	}
	return strings.Join(lines, by)
}

// fenceOf are more backquotes than a text holds in a row, and so many at least.
func fenceOf(text string, least int) string {
	longest, run := 0, 0
	for _, r := range text {
		if r != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return strings.Repeat("`", max(longest+1, least))
}
