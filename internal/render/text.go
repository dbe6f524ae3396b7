// Package render lays out, for people and for programs, what was read, judged and measured:
// stories as text, Markdown and one page of HTML, plain data as JSON and CSV. It decides no
// sentence and judges nothing: it decides what stands where, and what there is room for.
package render

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"linger/internal/figure"
	"linger/internal/story"
)

// Text lays a story out for a person: the verdict first, then what it rests on; one
// line that counts comes last. Of a part that stands alone it tells as much as a page
// has room for, of several parts a little each, and with Style.Verbose everything.
type Text struct {
	Style Style
}

const (
	// pageLines is how many lines a report on one problem may have: an incident's
	// terminal is 80 columns by 24 lines.
	pageLines = 24
	// proofLines is how many lines of a page are kept for what proves a problem and
	// acquits others, before anything else is told.
	proofLines = 6
)

// ranks are those that are told.
type ranks uint64

func (r ranks) has(rank story.Rank) bool { return r&(1<<rank) != 0 }

func (r ranks) with(rank story.Rank) ranks { return r | 1<<rank }

func (r ranks) without(rank story.Rank) ranks { return r &^ (1 << rank) }

// tells whether an item is told that has one rank and gives way to another.
func (r ranks) tells(i *story.Item) bool {
	return r.has(i.Rank) && (i.Until == story.Always || !r.has(i.Until)) && (!i.Again || i.Way != nil)
}

// upTo are all ranks up to one.
func upTo(last story.Rank) (r ranks) {
	for rank := story.Always; rank <= last; rank++ {
		r = r.with(rank)
	}
	return r
}

// brief are the ranks that are told of each of several parts.
func brief() (r ranks) {
	for rank := story.Always; rank < story.Whole; rank++ {
		if rank.Brief() {
			r = r.with(rank)
		}
	}
	return r
}

// Print writes the story. The errors are those of the writer, as with all printers.
func (t Text) Print(w io.Writer, s *story.Story) error {
	b := &block{style: t.Style}
	if !s.Verdict.Text.IsZero() {
		b.headline(s.Verdict.Mark, s.Verdict.Text)
	}
	switch {
	case t.Style.Verbose:
		t.everything(b, s)
	case len(s.Parts.Parts) == 1:
		t.one(b, s)
	default:
		t.several(b, s)
	}
	return b.print(w)
}

// one tells the only part in as much detail as a page allows. Where notes and lacks
// take what the part needs they are only named.
func (t Text) one(b *block, s *story.Story) {
	part := &s.Parts.Parts[0]
	much := upTo(story.Doubt)
	told := t.part(part, much)
	rest := slices.Concat(t.notes(s.Notes), t.end(s, much))
	if len(told)+len(rest) > pageLines-proofLines {
		rest = slices.Concat(t.noteNames(s.Notes), t.end(s, much.with(story.Counted)))
	}
	if len(told)+len(rest) > pageLines {
		much = much.without(story.Doubt)
		told = t.part(part, much)
	}
	for rank := story.Doubt + 1; rank < story.Whole; rank++ {
		next := much.with(rank)
		if !much.has(rank.Needs()) {
			continue
		}
		if with := t.part(part, next); len(with)+len(rest) <= pageLines {
			much, told = next, with
		}
	}
	b.blank()
	b.lines = append(b.lines, told...)
	t.sections(b, s.Sections, much)
	b.lines = append(b.lines, rest...)
}

// several tells many parts, each in brief.
func (t Text) several(b *block, s *story.Story) {
	much := brief()
	for i := range s.Parts.Parts {
		if much.has(s.Parts.Parts[i].Rank) {
			b.blank()
			b.lines = append(b.lines, t.part(&s.Parts.Parts[i], much)...)
		}
	}
	if !s.Parts.Rest.IsZero() {
		b.blank()
		b.full(story.Plain, t.Style.show(s.Parts.Rest))
	}
	b.lines = append(b.lines, t.notes(s.Notes)...)
	t.sections(b, s.Sections, much)
	b.lines = append(b.lines, t.end(s, much)...)
}

// everything is what -v tells.
func (t Text) everything(b *block, s *story.Story) {
	all := upTo(story.Finest)
	for _, parts := range [][]story.Part{s.Parts.Parts, s.Notes.Parts} {
		for i := range parts {
			b.blank()
			b.lines = append(b.lines, t.part(&parts[i], all)...)
		}
	}
	t.sections(b, s.Sections, all)
	b.lines = append(b.lines, t.end(s, all)...)
}

// notes tells parts that are only worth knowing, a few lines each.
func (t Text) notes(notes story.Group) []string {
	b := block{style: t.Style}
	for i := range notes.Parts {
		if i == 0 {
			b.lines = append(b.lines, "")
		}
		if note := &notes.Parts[i]; note.Rank == story.Always {
			b.headline(note.Mark, note.Title)
			b.paragraph("", story.Plain, t.Style.show(note.Brief))
		}
	}
	if !notes.Rest.IsZero() {
		b.full(story.Faint, t.Style.show(notes.Rest))
	}
	return b.lines
}

// noteNames names them.
func (t Text) noteNames(notes story.Group) []string {
	if len(notes.Parts) == 0 {
		return nil
	}
	b := block{style: t.Style, lines: []string{""}}
	b.headline(notes.Parts[0].Mark, notes.Names)
	return b.lines
}

// sections adds those that belong to no part, after an empty line.
func (t Text) sections(b *block, sections []story.Section, much ranks) {
	own := block{style: t.Style}
	for i := range sections {
		t.section(&own, &sections[i], much)
	}
	if len(own.lines) > 0 {
		b.blank()
		b.lines = append(b.lines, own.lines...)
	}
}

// end is what is missing, and the line that counts.
func (t Text) end(s *story.Story, much ranks) []string {
	if len(s.Counts) == 0 {
		return nil
	}
	b := block{style: t.Style, lines: []string{""}}
	switch {
	case much.has(story.Whole): // the sections tell it
	case much.has(story.Counted):
		t.inALine(&b, &s.Lacks)
	default:
		t.section(&b, &s.Lacks, much)
	}
	b.label = ""
	var counts []string
	for i := range s.Counts {
		if much.tells(&s.Counts[i]) {
			counts = append(counts, t.Style.show(s.Counts[i].Text))
		}
	}
	b.full(story.Faint, strings.Join(counts, t.Style.dot()))
	return b.lines
}

// inALine says a section in the one line that it has.
func (t Text) inALine(b *block, s *story.Section) {
	b.section(s.Label.Short)
	for i, text := range s.InALine {
		line := t.Style.show(text)
		if i == len(s.InALine)-1 || utf8.RuneCountInString(line) <= t.Style.columns()-margin {
			b.paragraph("", story.Plain, line)
			return
		}
	}
}

// part tells one part, and what hangs together with it.
func (t Text) part(p *story.Part, much ranks) []string {
	b := &block{style: t.Style}
	t.single(b, p, much)
	if much.has(story.Whole) {
		for i := range p.Related {
			b.blank()
			t.single(b, &p.Related[i], much)
		}
	}
	return b.lines
}

func (t Text) single(b *block, p *story.Part, much ranks) {
	if p.Mark.Word.IsZero() {
		b.full(story.Strong, t.Style.show(p.Title))
	} else {
		b.headline(p.Mark, p.Title)
	}
	if !p.Lead.IsZero() {
		b.full(story.Plain, t.Style.show(p.Lead))
		if much.has(story.Air) {
			b.blank()
		}
	}
	for i := range p.Sections {
		t.section(b, &p.Sections[i], much)
	}
	b.label = ""
	for _, line := range p.Attached {
		b.lines = append(b.lines, t.Style.show(line))
	}
}

// section tells a section; one without a label goes on with the one before.
func (t Text) section(b *block, s *story.Section, much ranks) {
	if s.Again {
		return
	}
	if s.Label.Short != "" {
		b.section(s.Label.Short)
	}
	if !s.None.IsZero() {
		b.paragraph("", story.Plain, t.Style.show(s.None))
	}
	if s.Side && !much.has(story.Whole) {
		t.side(b, s, much)
		return
	}
	longest := 0
	for i := range s.Items {
		if it := &s.Items[i]; it.Quantity != nil && much.tells(it) {
			longest = max(longest, utf8.RuneCountInString(t.Style.show(it.Name)))
		}
	}
	told, left := 0, 0 // of one kind
	for i := range s.Items {
		it := &s.Items[i]
		if much.tells(it) {
			t.item(b, s, it, longest, much)
			told++
		} else {
			left++
		}
		if i == len(s.Items)-1 || !same(it.Kind, s.Items[i+1].Kind) {
			if it.Kind != nil && told > 0 && left > 0 {
				t.more(b, it.Kind, left)
			}
			told, left = 0, 0
		}
	}
}

// same tells whether two items are counted together.
func same(a, b *story.Noun) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// more says how much is left for -v.
func (t Text) more(b *block, kind *story.Noun, n int) {
	text := figure.Of(n, "more "+kind.One, "more "+kind.Many)
	b.paragraph("", story.Faint, strings.TrimRight(text, " ")+": `linger -v`")
}

// side writes the items of a section side by side.
func (t Text) side(b *block, s *story.Section, much ranks) {
	var texts []string
	for i := range s.Items {
		if much.tells(&s.Items[i]) {
			texts = append(texts, t.Style.show(s.Items[i].Text))
		}
	}
	if len(texts) > 0 {
		b.paragraph("", story.Plain, strings.Join(texts, t.Style.dot()))
	}
}

func (t Text) item(b *block, s *story.Section, it *story.Item, longest int, much ranks) {
	switch {
	case it.Quantity != nil:
		t.quantity(b, it, longest, much)
	case it.Bars != nil:
		if line := t.history(it.Bars); line != "" {
			b.beside("", true, story.Plain, line)
		}
	case it.Way != nil:
		t.way(b, it.Way, it.Again, much)
	case it.Command != nil:
		b.verbatim("", it.Command)
	default:
		b.paragraph("", it.Tone, t.said(s, it, much))
	}
}

// said is an item in words.
func (t Text) said(s *story.Section, it *story.Item, much ranks) string {
	text := t.Style.show(it.Text)
	if !it.Full.IsZero() && much.has(it.FullFrom) {
		text = t.Style.show(it.Full)
	}
	if it.Name.IsZero() {
		return text
	}
	name := t.Style.show(it.Name) + t.Style.show(it.Where)
	if s.Label.Verb != "" {
		return s.Label.Verb + " " + name + "; " + text
	}
	return name + ": " + text
}

func (t Text) quantity(b *block, it *story.Item, longest int, much ranks) {
	q := it.Quantity
	b.paragraph(pad(t.Style.show(it.Name), longest)+"  ", story.Plain, t.Style.spell(measured(q)))
	if !much.has(story.Finest) {
		return
	}
	if !q.Source.IsZero() {
		b.paragraph("  ", story.Faint, "from "+t.Style.show(q.Source))
	}
	b.verbatim("  ", q.Check)
}
