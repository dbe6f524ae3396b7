package render

import (
	"strings"

	"linger/internal/diagnose"
)

// Style says for what kind of terminal text is written.
type Style struct {
	// Width is in columns. Text narrower than 40 columns is not made.
	Width int
	// Colour adds to the words and signs, and never says anything alone.
	Colour bool
	// ASCII is for a locale that is not UTF-8.
	ASCII bool
	// Verbose tells everything: what held, each gap, each related finding.
	Verbose bool
}

const (
	narrowest = 40
	// widest is where a line of prose gets hard to read, whatever the terminal.
	widest = 120
)

func (s Style) width() int { return min(max(s.Width, narrowest), widest) }

// tone is what a piece of text is, told by colour where there is any.
type tone int

const (
	plain tone = iota
	strong
	faint
	command
	toneCritical
	toneWarning
	toneInfo
	toneOK
)

// sgr are the parameters of Select Graphic Rendition (ECMA-48 §8.3.117). Only
// the eight first colours are used, which every palette keeps readable.
var sgr = map[tone]string{
	strong:       "1",
	faint:        "2",
	command:      "36",
	toneCritical: "1;31",
	toneWarning:  "1;33",
	toneInfo:     "1;34",
	toneOK:       "1;32",
}

// paint adds the tone to text that is already clean and laid out.
func (s Style) paint(t tone, text string) string {
	if !s.Colour || t == plain || text == "" {
		return text
	}
	return "\x1b[" + sgr[t] + "m" + text + "\x1b[0m"
}

// mark is the icon and word of a severity.
type mark struct {
	icon, asciiIcon, word string
	tone                  tone
}

func (m mark) String(ascii bool) string {
	if ascii {
		return m.asciiIcon + " " + m.word
	}
	return m.icon + " " + m.word
}

var (
	markOK      = mark{icon: "✔", asciiIcon: "+", word: "OK", tone: toneOK}
	markUnknown = mark{icon: "?", asciiIcon: "?", word: "UNKNOWN", tone: toneWarning}
)

func markOf(s diagnose.Severity) mark {
	switch s {
	case diagnose.Critical:
		return mark{icon: "✖", asciiIcon: "X", word: "CRITICAL", tone: toneCritical}
	case diagnose.Warning:
		return mark{icon: "▲", asciiIcon: "!", word: "WARNING", tone: toneWarning}
	default:
		return mark{icon: "●", asciiIcon: "i", word: "INFO", tone: toneInfo}
	}
}

// sparkline draws values as bars between zero and the largest.
func (s Style) sparkline(values []float64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	if s.ASCII {
		bars = []rune("_.:-=+*#")
	}
	highest := 0.0
	for _, v := range values {
		highest = max(highest, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if highest > 0 {
			i = int(v/highest*float64(len(bars)-1) + 0.5)
		}
		// What is not zero does not look like zero.
		if v > 0 {
			i = max(i, 1)
		}
		b.WriteRune(bars[i])
	}
	return b.String()
}
