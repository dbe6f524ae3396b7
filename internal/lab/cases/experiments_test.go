package cases_test

import (
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
)

// Experiments are named once, have a base line, and each variant says what it expects.
func TestExperimentsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range cases.Experiments() {
		if seen[e.Name] {
			t.Errorf("%s is there twice", e.Name)
		}
		seen[e.Name] = true
		if e.Title == "" || e.Question == "" || len(e.Quantities) == 0 {
			t.Errorf("%s lacks a title, a question or a quantity", e.Name)
		}
		if len(e.Arms) < 2 {
			t.Errorf("%s has %d arms", e.Name, len(e.Arms))
			continue
		}
		for i, a := range e.Arms {
			if i > 0 && (a.Expect == "" || a.Kind == "" || a.How == "") {
				t.Errorf("%s: %s says not what it is, or what to expect", e.Name, a.ID)
			}
			if a.Seconds <= 0 {
				t.Errorf("%s: %s says not how long it takes", e.Name, a.ID)
			}
		}
	}
	for _, r := range diagnose.Rules() {
		if !seen[string(r.Slug)] {
			t.Errorf("no experiment measures %s", r.Slug)
		}
	}
}
