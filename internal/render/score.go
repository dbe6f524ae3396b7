package render

import (
	"fmt"
	"io"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/proof"
)

// ScoreSchema names the form of the JSON of scores (docs/score.schema.json).
const ScoreSchema = "linger.score/1"

// Scores are what a diagnosis made of what the laboratory built.
type Scores struct {
	Measured
	Scores []proof.Score `json:"scores"`
}

// ScorePrinter writes scores, in one form.
type ScorePrinter interface {
	PrintScores(w io.Writer, s Scores) error
}

// PrintScores writes one object, described by docs/score.schema.json.
func (JSON) PrintScores(w io.Writer, s Scores) error {
	return newEncoder(w).Encode(s)
}

// tally counts what was named as it was built, what was not, what could not be built
// and what this kernel cannot have.
func (s Scores) tally() (right, missed, cannot, absent int) {
	for _, score := range s.Scores {
		switch {
		case score.Absent != "":
			absent++
		case score.Cannot != "":
			cannot++
		case score.Miss != "":
			missed++
		default:
			right++
		}
	}
	return right, missed, cannot, absent
}

// headline says in one sentence how it came out.
func (s Scores) headline() string {
	right, missed, cannot, absent := s.tally()
	text := fmt.Sprintf("linger diagnose named %d of %s as it was built", right, figure.Of(right+missed, "build", "builds"))
	if missed > 0 {
		text += ", and missed " + fmt.Sprint(missed)
	}
	if cannot > 0 {
		text += fmt.Sprintf("; %d could not be built", cannot)
	}
	if absent > 0 {
		text += fmt.Sprintf("; %d cannot be on this kernel", absent)
	}
	return text
}

func (s Scores) where() string {
	return fmt.Sprintf("Linux %s · %s · %s", s.Kernel, figure.Of(s.CPUs, "CPU", "CPUs"), figure.Elapsed(time.Duration(s.ElapsedMS)*time.Millisecond))
}

// scoreMark is the sign and word of one score.
func scoreMark(s proof.Score) mark {
	switch {
	case s.Absent != "":
		return mark{icon: "·", asciiIcon: ".", word: "absent", tone: faint}
	case s.Cannot != "":
		return mark{icon: "?", asciiIcon: "?", word: "not built", tone: toneWarning}
	case s.Miss != "":
		return mark{icon: "✖", asciiIcon: "X", word: "MISS", tone: toneCritical}
	}
	return mark{icon: "✔", asciiIcon: "+", word: "right", tone: toneOK}
}

// tellScore is what there is to say beside the mark, empty where it is right.
func tellScore(s proof.Score) string {
	switch {
	case s.Absent != "":
		return s.Absent
	case s.Cannot != "":
		return s.Cannot
	}
	return s.Miss
}

func slugs(named []diagnose.Slug) string {
	if len(named) == 0 {
		return "nothing"
	}
	words := make([]string, len(named))
	for i, n := range named {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}

func seedOf(s proof.Score) string {
	if s.Seed == nil {
		return ""
	}
	return fmt.Sprint(*s.Seed)
}

// Drawn writes what a seed draws, before it is built.
func Drawn(w io.Writer, style Style, seed uint64, told string) error {
	lines := wrap(Clean(fmt.Sprintf("Seed %d: %s", seed, told)), style.width())
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n\n")
	return err
}

// PrintScores writes a table, and of each miss what was built and how to build it
// again.
func (t Text) PrintScores(w io.Writer, s Scores) error {
	var b strings.Builder
	style := t.Style
	_, missed, cannot, _ := s.tally()
	verdict := markOK
	switch {
	case missed > 0:
		verdict = mark{icon: "✖", asciiIcon: "X", word: "MISSED", tone: toneCritical}
	case cannot > 0:
		verdict = mark{icon: "?", asciiIcon: "?", word: "INCOMPLETE", tone: toneWarning}
	}
	fmt.Fprintf(&b, "%s  %s\n%s\n\n", style.paint(verdict.tone, verdict.String(style.ASCII)), s.headline(), s.where())
	seeds := 0
	for _, score := range s.Scores {
		seeds = max(seeds, len(seedOf(score)))
	}
	column := ""
	if seeds > 0 {
		seeds = max(seeds, len("SEED"))
		column = fmt.Sprintf("%-*s  ", seeds, "SEED")
	}
	fmt.Fprintf(&b, "%s\n", style.paint(strong, fmt.Sprintf("%-11s  %s%-21s  %s", "", column, "BUILT", "NAMED")))
	for _, score := range s.Scores {
		m := scoreMark(score)
		if seeds > 0 {
			column = fmt.Sprintf("%-*s  ", seeds, seedOf(score))
		}
		named := slugs(score.Named)
		if score.Absent != "" || score.Cannot != "" {
			named = ""
		}
		row := fmt.Sprintf("%s%-21s  %s", column, score.Built, named)
		fmt.Fprintf(&b, "%s  %s\n", style.paint(m.tone, fmt.Sprintf("%-11s", m.String(style.ASCII))), strings.TrimRight(row, " "))
		told := tellScore(score)
		if score.Miss != "" && score.Seed != nil {
			told += fmt.Sprintf("; `linger lab random --seed %d` builds it again. Built: %s", *score.Seed, score.Drawn)
		}
		if told != "" {
			for _, line := range wrap(Clean(told), style.width()-13) {
				fmt.Fprintf(&b, "%13s%s\n", "", line)
			}
		}
	}
	_, err := io.WriteString(w, style.plain(b.String()))
	return err
}

// PrintScores writes a table.
func (Markdown) PrintScores(w io.Writer, s Scores) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\n| | seed | built | named | cured | |\n|---|---:|---|---|---|---|\n", s.headline(), escape(s.where()))
	for _, score := range s.Scores {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", scoreMark(score).String(false), seedOf(score), score.Built,
			slugs(score.Named), slugs(score.Cured), escape(tellScore(score)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
