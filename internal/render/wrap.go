package render

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"linger/internal/story"
)

// wrap breaks text into lines of at most width columns. It breaks at spaces
// alone, so that an address, a path or anything else without a space is never
// cut: what is too long for any line gets one of its own. What stands between
// backquotes is a command and stays whole too, and no line begins with a sign
// that is no word, such as %. There is no empty line but for empty text.
func wrap(text string, width int) []string {
	var lines []string
	line, columns := "", 0
	for _, word := range words(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, columns = word, n
		case columns+1+n <= width:
			line, columns = line+" "+word, columns+1+n
		default:
			lines = append(lines, line)
			line, columns = word, n
		}
	}
	lines = append(lines, line)
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], string(story.NoBreak), " ")
	}
	return lines
}

// words are the parts of text between which a line may break.
func words(text string) []string {
	var words []string
	open := false
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }) {
		if open || len(words) > 0 && !isWord(field) {
			words[len(words)-1] += " " + field
		} else {
			words = append(words, field)
		}
		if strings.Count(field, "`")%2 == 1 {
			open = !open
		}
	}
	if !open {
		return words
	}
	// The last backquote opens nothing: it is a sign like any other.
	last := words[len(words)-1]
	return append(words[:len(words)-1], strings.Fields(last)...)
}

func isWord(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}
