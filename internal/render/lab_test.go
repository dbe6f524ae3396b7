package render

import (
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"linger/internal/proof"
	"linger/internal/story"
)

// aRun is a run with everything that can be in one: a variant that works, one that
// harms, one that could not run, a curve, a ladder, names that try to be markup.
func aRun() *proof.Lab {
	arm := func(id string, kind proof.Kind, values ...float64) proof.Result {
		r := proof.Result{Arm: proof.Arm{ID: id, Title: "<b>" + id + "</b>", Kind: kind, How: "a=`1`"}, Runs: []proof.Run{}}
		for _, v := range values {
			r.Runs = append(r.Runs, proof.Run{
				Values: map[string]float64{"left": v},
				Series: []proof.Series{{Name: "left", XUnit: "s", YUnit: "sockets", X: []float64{0, 60, 61}, Y: []float64{50, 50, 0}}},
				Named:  []proof.Name{{Problem: "connection-churn", At: "backend"}},
			})
		}
		return r
	}
	absent := arm("absent", proof.Folklore)
	absent.Cannot = "no such key"
	wrong := arm("wrong", proof.Folklore, 100)
	wrong.Expect = proof.Works
	drawn := arm("drawn", proof.Observation, 100, 101)
	drawn.Runs[0].Ladders = []proof.Ladder{{Title: "the last ACK", Left: "client", Right: "server", Rungs: []proof.Rung{
		{Label: "FIN", FromLeft: true}, {Seconds: 0.2, Label: "ACK", Lost: true, Note: "dropped"},
	}}}
	p := proof.Proof{
		Experiment: "fin-timeout",
		Problem:    "fin-timeout",
		Title:      "A title",
		Question:   "A question?",
		Quantities: []proof.Quantity{
			{Name: "left", Title: "what is left", Unit: "sockets", Better: proof.Less, Margin: proof.Margin{Absolute: 2}},
		},
		Base: arm(
			"base",
			"",
			100,
			101,
			99,
		),
		Variants: []proof.Result{arm("pool", proof.Remedy, 0), arm("lower", proof.Folklore, 180), absent, wrong, drawn},
	}
	p.Judge()
	none := proof.Proof{
		Experiment: "tw-recycle",
		Cannot:     "not on this kernel",
		Quantities: []proof.Quantity{},
		Variants:   []proof.Result{},
		Base:       proof.Result{Runs: []proof.Run{}, Spreads: []proof.Spread{}, Unexpected: []string{}},
	}
	return &proof.Lab{Measured: measuredAs(LabSchema), Proofs: []proof.Proof{p, none}}
}

// measuredAs begins the documents of these tests.
func measuredAs(schema string) proof.Measured {
	return proof.Measured{Schema: schema, TakenAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ElapsedMS: 61_000, Kernel: "6.18", CPUs: 2}
}

// reporter lays out what a laboratory measured.
type reporter interface {
	PrintReport(w io.Writer, r *story.Report) error
}

func reported(t *testing.T, p reporter, r *story.Report) string {
	t.Helper()
	return written(t, func(w io.Writer) error { return p.PrintReport(w, r) })
}

func TestLabJSONFollowsItsSchema(t *testing.T) {
	text := written(t, func(w io.Writer) error { return JSON{}.Lab(w, aRun()) })
	if err := follows(t, "lab", text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	var back struct {
		Proofs []struct {
			Variants []struct{ Verdict proof.Verdict }
		}
	}
	if err := json.Unmarshal([]byte(text), &back); err != nil || back.Proofs[0].Variants[0].Verdict != proof.Works {
		t.Errorf("read back: %v", err)
	}
}

// The page is whole: nothing is fetched, nothing of what was measured is markup, and
// every verdict is there as a word.
func TestLabPageStandsAlone(t *testing.T) {
	page := reported(t, HTML{}, story.Lab(aRun()))
	if found := regexp.MustCompile(`(?i)(src=|href="[^#]|url\(|@import|<script|https?:)`).FindString(page); found != "" {
		t.Errorf("the page reaches for %q", found)
	}
	for _, want := range []string{"works", "harmful", "no effect", "base line", "Not as expected", "no such key",
		"not on this kernel", "<polyline", "the last ACK", "&lt;b&gt;pool&lt;/b&gt;", "linger says"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "<b>pool</b>") {
		t.Error("a title is read as markup")
	}
}

func TestLabTextAndMarkdown(t *testing.T) {
	for name, p := range map[string]reporter{"text": Text{Style: Style{Width: 80}},
		"ASCII": Text{Style: Style{Width: 80, ASCII: true}}, "Markdown": Markdown{}} {
		text := reported(t, p, story.Lab(aRun()))
		for _, want := range []string{"works", "harmful", "no effect", "base line", "no such key", "not on this kernel",
			"2 experiments and 5 variants measured, 1 not as expected, 2 could not run"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
		if name == "ASCII" && strings.ContainsFunc(text, func(r rune) bool { return r > 126 }) {
			t.Errorf("%s has other characters:\n%s", name, text)
		}
	}
}
