package render

import (
	"io"
	"strings"
	"testing"

	"linger/internal/proof"
	"linger/internal/story"
)

// aProof are changes of which one works, one does nothing, one cannot be measured.
func aProof() *proof.Proved {
	l := aRun()
	p := &proof.Proved{Measured: measuredAs(ProveSchema)}
	for _, verdict := range []proof.Verdict{proof.Works, proof.NoEffect, ""} {
		c := proof.ProvedChange{
			Scope:   "netns shop\x1b[2J",
			Key:     "net.ipv4.tcp_tw_reuse",
			Old:     "",
			New:     "1",
			Verdict: verdict,
			Notes:   []string{"a note"},
			Proof:   l.Proofs[0],
		}
		if verdict == "" {
			c.Cannot, c.Proof = "kept once for the host", l.Proofs[1]
		}
		p.Changes = append(p.Changes, c)
	}
	return p
}

func TestProvedFollowsItsSchema(t *testing.T) {
	text := written(t, func(w io.Writer) error { return JSON{}.Proved(w, aProof()) })
	if err := follows(t, "prove", text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestProvedAsTextAndMarkdown(t *testing.T) {
	for name, p := range map[string]reporter{"text": Text{Style: Style{Width: 80}},
		"ASCII": Text{Style: Style{Width: 80, ASCII: true}}, "Markdown": Markdown{}} {
		text := reported(t, p, story.Prove(aProof()))
		for _, want := range []string{"1 of 2 changes measured work as the plan promises; 1 " +
			"could not be", "a note", "kept once for the host", "works", "no effect"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s moves the cursor: %q", name, text)
		}
		if name == "ASCII" && strings.ContainsFunc(text, func(r rune) bool { return r > 126 }) {
			t.Errorf("%s has other characters:\n%s", name, text)
		}
	}
	if v := story.Prove(&proof.Proved{}).Verdict; v.Mark.Word.String() != "OK" || v.Text.String() != "the plan changes nothing" {
		t.Errorf("%v", v)
	}
}
