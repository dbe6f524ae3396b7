package render

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"linger/internal/story"
)

// way tells one way to mend something: now, for ever, and at what price. Where a command
// does it, the words say when the command is not enough, and come after it.
func (t Text) way(b *block, w *story.Way, again bool, much ranks) {
	number := fmt.Sprintf("%d. ", w.Number)
	if again {
		b.paragraph(number, story.Plain, t.Style.show(w.Title)+": as above")
		return
	}
	b.paragraph(number, story.Strong, t.Style.show(w.Title))
	change := w.Change
	if much.has(story.InFull) {
		change = w.ChangeInFull
	}
	words := func() {
		if !change.IsZero() {
			b.paragraph("   ", story.Plain, t.Style.show(change))
		}
	}
	if len(w.Now) == 0 {
		words()
	}
	for _, e := range w.Examples {
		if much.has(e.Rank) {
			b.paragraph(field("e.g."), story.Plain, "in "+t.Style.show(e.Program)+":")
			b.verbatim(field(""), e.Line)
		}
	}
	if len(w.Now) > 0 {
		b.verbatim(field("now"), w.Now)
	}
	if w.Keep != nil {
		t.keep(b, w.Keep, much)
	}
	if len(w.Now) > 0 {
		words()
	}
	if much.has(w.PricedAt) {
		t.price(b, w, much)
	}
}

// price tells what a way frees and what it may cost, side by side where there is little
// room.
func (t Text) price(b *block, w *story.Way, much ranks) {
	var inline []string
	for _, p := range w.Price {
		switch {
		case !much.has(p.Rank):
		case much.has(story.Whole):
			b.paragraph(field(p.Name), story.Plain, t.Style.show(p.Text))
		case !p.Inline.IsZero():
			inline = append(inline, t.Style.show(p.Inline))
		}
	}
	if len(inline) > 0 {
		b.paragraph("   ", story.Plain, strings.Join(inline, t.Style.dot()))
	}
}

// keep tells what keeps a setting: the file and its line, on one line of text where they
// fit; and no line twice, where what keeps it is the command of now.
func (t Text) keep(b *block, k *story.Keep, much ranks) {
	file := t.Style.show(k.File)
	switch {
	case k.Same:
		b.paragraph(field("for ever"), story.Plain, "the same in "+file)
	case len(k.Line) == 1 && margin+fieldWidth+utf8.RuneCountInString(file+": "+t.Style.show(k.Line[0])) <= t.Style.columns():
		b.beside(field("for ever"), true, story.ToCopy, file+": "+t.Style.show(k.Line[0]))
	default:
		b.paragraph(field("for ever"), story.Plain, "in "+file)
		b.verbatim(field(""), k.Line)
	}
	if much.has(story.Heeding) && !k.Note.IsZero() {
		b.paragraph(field(""), story.Plain, t.Style.show(k.Note))
	}
}

// fieldWidth is the width of a way's column of names.
const fieldWidth = 3 + 10

// field leads a line of a way; it hangs below the way's title.
func field(name string) string { return pad("   "+name, fieldWidth) }
