package render

import (
	"bytes"
	"strings"
	"testing"

	"linger/internal/proof"
)

// aProof are changes of which one works, one does nothing, one cannot be measured.
func aProof() Proved {
	l := aRun()
	p := Proved{Measured: measuredAs(ProveSchema)}
	for _, verdict := range []proof.Verdict{proof.Works, proof.NoEffect, ""} {
		c := ProvedChange{Scope: "netns shop\x1b[2J", Key: "net.ipv4.tcp_tw_reuse", Old: "", New: "1", Verdict: verdict, Notes: []string{"a note"}, Proof: l.Proofs[0]}
		if verdict == "" {
			c.Cannot, c.Proof = "kept once for the host", l.Proofs[1]
		}
		p.Changes = append(p.Changes, c)
	}
	return p
}

func TestProvedFollowsItsSchema(t *testing.T) {
	var b bytes.Buffer
	if err := (JSON{}).PrintProved(&b, aProof()); err != nil {
		t.Fatal(err)
	}
	if err := follows(t, "prove", b.String()); err != nil {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestProvedAsTextAndMarkdown(t *testing.T) {
	for name, p := range map[string]ProvePrinter{"text": Text{Style: Style{Width: 80}}, "ASCII": Text{Style: Style{Width: 80, ASCII: true}}, "Markdown": Markdown{}} {
		var b bytes.Buffer
		if err := p.PrintProved(&b, aProof()); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		for _, want := range []string{"1 of 2 changes measured work as the plan promises; 1 could not be", "a note", "kept once for the host", "works", "no effect"} {
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
	empty := Proved{Changes: []ProvedChange{}}
	if m, text := empty.headline(); m.word != "OK" || text != "the plan changes nothing" {
		t.Errorf("%s %s", m.word, text)
	}
}
