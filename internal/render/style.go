package render

import (
	"strings"

	"linger/internal/story"
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

func (s Style) columns() int { return min(max(s.Width, narrowest), widest) }

// sgr are the parameters of Select Graphic Rendition (ECMA-48 §8.3.117). Only
// the eight first colours are used, which every palette keeps readable.
var sgr = map[story.Tone]string{
	story.Strong:   "1",
	story.Faint:    "2",
	story.ToCopy:   "36",
	story.Critical: "1;31",
	story.Warning:  "1;33",
	story.Info:     "1;34",
	story.Fine:     "1;32",
}

// paint adds the tone to text that is already clean and laid out.
func (s Style) paint(t story.Tone, text string) string {
	if !s.Colour || t == story.Plain || text == "" {
		return text
	}
	return "\x1b[" + sgr[t] + "m" + text + "\x1b[0m"
}

// mark is the sign and word of a verdict.
func (s Style) mark(m story.Mark) string {
	sign := string(m.Sign)
	if s.ASCII {
		sign = asciiSigns[m.Sign]
	}
	return sign + " " + s.show(m.Word)
}

// asciiSigns stand for the signs of marks.
var asciiSigns = map[rune]string{'✔': "+", '✖': "X", '▲': "!", '●': "i", '○': "o", '·': ".", '?': "?"}

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
