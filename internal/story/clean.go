package story

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is words that can be shown anywhere: no sign in it does anything but show. It
// is made by Clean alone, so that nothing from outside gets into a story otherwise.
// What a face has a language of its own for, such as HTML, it escapes itself.
type Text struct{ words string }

// String is the text as it is.
func (t Text) String() string { return t.words }

// IsZero tells whether there is nothing to show.
func (t Text) IsZero() bool { return t.words == "" }

// NoBreak is the no-break space: it keeps two words on one line, and becomes an
// ordinary space there.
const NoBreak = '\u00a0'

// Clean makes text of what anybody may have written. A process names itself (prctl(2),
// PR_SET_NAME) and may do so with escape sequences; control and format characters and
// bytes that are no UTF-8 are therefore written as \x1b or \u202e, and a new line or a
// tab as a space.
func Clean(text string) Text {
	if isClean(text) {
		return Text{text}
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
		case !showable(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return Text{b.String()}
}

func isClean(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !showable(r) })
}

// showable tells whether the rune prints as a sign or a space and changes
// nothing around it. unicode.IsGraphic leaves out Cc, Cf and the line separators.
func showable(r rune) bool { return unicode.IsGraphic(r) }

// cleanAll makes texts.
func cleanAll(texts []string) []Text {
	out := make([]Text, len(texts))
	for i, text := range texts {
		out[i] = Clean(text)
	}
	return out
}

// Command is what can be copied as it stands, a line of it each.
type Command []Text

// copied makes one; it has no lines where there is nothing to copy.
func copied(text string) Command {
	if text == "" {
		return nil
	}
	var lines Command
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		lines = append(lines, Clean(strings.NewReplacer("\t", "    ", string(NoBreak), " ").Replace(line)))
	}
	return lines
}

// oneLine makes a command of which no name begins a second line: that would be another command.
func oneLine(text string) Command { return copied(Clean(text).String()) }

// glue keeps words on one line.
func glue(text string) string { return strings.ReplaceAll(text, " ", string(NoBreak)) }
