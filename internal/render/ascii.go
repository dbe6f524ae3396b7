package render

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"linger/internal/story"
)

// show is text as the terminal can show it: where it knows ASCII alone, what is not
// ASCII is written as \u202e, but for a few signs that have an ASCII form and for the
// no-break space, which ends in wrap.
func (s Style) show(t story.Text) string { return s.spell(t.String()) }

func (s Style) spell(text string) string {
	if !s.ASCII || !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch form := asciiForm(r); {
		case r < utf8.RuneSelf || r == story.NoBreak:
			b.WriteRune(r)
		case form == "":
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(form)
		}
	}
	return b.String()
}

// dot parts what stands side by side; no line begins with it.
func (s Style) dot() string { return s.spell(string(story.NoBreak) + "· ") }

// asciiForm is how to write a sign on a terminal that knows ASCII alone, empty
// where there is no such form.
func asciiForm(r rune) string {
	switch r {
	case '→':
		return "->"
	case '←':
		return "<-"
	case '·':
		return "-"
	case '…':
		return "..."
	case '–', '—', '−':
		return "-"
	case '×':
		return "x"
	case 'µ':
		return "u"
	case '≥':
		return ">="
	case '≤':
		return "<="
	case '≈':
		return "~"
	case '“', '”':
		return `"`
	case '‘', '’':
		return "'"
	}
	return ""
}
