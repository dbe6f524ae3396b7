package render

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/proof"
	"linger/internal/story"
)

// someScores are one of each kind.
func someScores() *proof.Scores {
	seed := func(n uint64) *uint64 { return &n }
	return &proof.Scores{
		Measured: measuredAs(ScoreSchema),
		Scores: []proof.Score{
			{Built: "tw-reuse", Named: []diagnose.Slug{"tw-reuse", "client-closes-first"}},
			{Built: "tw-recycle", Named: []diagnose.Slug{}, Absent: "kernel 4.12 removed it"},
			{
				Seed:  seed(7),
				Drawn: "2 hosts → a\x1b[2J switch",
				Built: proof.Healthy,
				Named: []diagnose.Slug{"tw-reuse"},
				Miss:  "tw-reuse is named where nothing is wrong",
			},
			{Seed: seed(8), Drawn: "3 hosts", Built: "fin-timeout", Named: []diagnose.Slug{}, Cannot: "no bridge"},
		},
	}
}

func TestScoresFollowTheirSchema(t *testing.T) {
	text := written(t, func(w io.Writer) error { return JSON{}.Scores(w, someScores()) })
	if err := follows(t, "score", text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	var back proof.Scores
	if err := json.Unmarshal([]byte(text), &back); err != nil || len(back.Scores) != 4 || *back.Scores[2].Seed != 7 {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

// A miss tells how to build it again; what was drawn cannot move the cursor; no line is
// wider than the terminal.
func TestScoresAsText(t *testing.T) {
	for name, p := range map[string]interface {
		PrintExam(io.Writer, *story.Exam) error
	}{"text": Text{Style: Style{Width: 80}}, "ASCII": Text{Style: Style{Width: 80, ASCII: true}}, "Markdown": Markdown{}} {
		text := written(t, func(w io.Writer) error { return p.PrintExam(w, story.Score(someScores())) })
		for _, want := range []string{"named 1 of 2 builds", "missed 1", "1 could not be built", "1 cannot be on this kernel",
			"kernel 4.12 removed it", "no bridge", "MISS", "right"} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
		if name == "Markdown" {
			continue
		}
		if !strings.Contains(text, "`linger lab random --seed 7`") || strings.Contains(text, "\x1b") {
			t.Errorf("%s:\n%q", name, text)
		}
		for line := range strings.Lines(text) {
			if n := len(
				[]rune(strings.TrimSuffix(line, "\n")),
			); n > 80 && !strings.HasPrefix(line, "✖ MISSED") &&
				!strings.HasPrefix(line, "X MISSED") {
				t.Errorf("%s: %d columns: %q", name, n, line)
			}
		}
		if name == "ASCII" && strings.ContainsFunc(text, func(r rune) bool { return r > 126 }) {
			t.Errorf("%s has other characters:\n%s", name, text)
		}
	}
}

func TestDrawn(t *testing.T) {
	text := story.Drawn(7, "2 hosts on a switch. Nothing is wrong. Nothing else goes on.")
	got := written(t, func(w io.Writer) error { return Text{Style: Style{Width: 40}}.Paragraph(w, text) })
	if want := "Seed 7: 2 hosts on a switch. Nothing is\nwrong. Nothing else goes on.\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
