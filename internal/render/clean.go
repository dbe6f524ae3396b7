package render

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text safe for a terminal. A process names itself (prctl(2),
// PR_SET_NAME) and may do so with escape sequences; control and format
// characters and bytes that are no UTF-8 are therefore written as \x1b or
// \u202e, and a new line or a tab as a space. With ascii set, what is not ASCII
// is written so too, but for a few signs that have an ASCII form and for the
// no-break space, which ends in wrap.
func clean(text string, ascii bool) string {
	if isClean(text, ascii) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !showable(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r == noBreak:
			b.WriteRune(r)
		case !showable(r) || ascii && r >= utf8.RuneSelf && asciiForm(r) == "":
			fmt.Fprintf(&b, `\u%04x`, r)
		case ascii && r >= utf8.RuneSelf:
			b.WriteString(asciiForm(r))
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// Clean makes text safe for a terminal: control characters, which a process may
// put into its name, are written as \x1b.
func Clean(text string) string { return clean(text, false) }

func isClean(text string, ascii bool) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if !showable(r) || ascii && r >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// showable tells whether the rune prints as a sign or a space and changes
// nothing around it. unicode.IsGraphic leaves out Cc, Cf and the line separators.
func showable(r rune) bool {
	return unicode.IsGraphic(r)
}

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
