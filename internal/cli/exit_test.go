package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/proof"
)

func TestCodeFor(t *testing.T) {
	finding := func(s diagnose.Severity, related ...diagnose.Finding) diagnose.Finding {
		return diagnose.Finding{Severity: s, Related: related}
	}
	for _, c := range []struct {
		name                     string
		findings                 []diagnose.Finding
		warning, critical, never int
	}{
		{"nothing", nil, 0, 0, 0},
		{"info", []diagnose.Finding{finding(diagnose.Info)}, 0, 0, 0},
		{"warning", []diagnose.Finding{finding(diagnose.Warning), finding(diagnose.Info)}, 1, 0, 0},
		{"critical", []diagnose.Finding{finding(diagnose.Warning), finding(diagnose.Critical)}, 2, 2, 0},
		{"folded", []diagnose.Finding{finding(diagnose.Info, finding(diagnose.Warning))}, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for failOn, want := range map[string]int{failOnWarning: c.warning, failOnCritical: c.critical, failOnNever: c.never} {
				if got := codeFor(c.findings, failOn); got != want {
					t.Errorf("--fail-on %s gives %d, want %d", failOn, got, want)
				}
			}
		})
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{usagef("", "unknown command"), 64},
		{errors.New("no chosen network namespace could be read"), 3},
		{quietly(syscall.ENOSPC), 74},
		{quietly(syscall.EPIPE), 0},
		{fmt.Errorf("flags: %w", usagef("", "no")), 64},
		{errors.New("/proc is not mounted"), 3},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v gives %d, want %d", c.err, got, c.want)
		}
	}
}

// A miss comes before what could not be built, and what this kernel cannot have is no
// failure; so with a plan's changes.
func TestCodesOfTheLaboratory(t *testing.T) {
	right, miss := proof.Score{}, proof.Score{Miss: "nothing was named"}
	cannot, absent := proof.Score{Cannot: "no bridge"}, proof.Score{Absent: "kernel 4.12 removed it"}
	for want, scores := range map[int][][]proof.Score{
		0: {{}, {right}, {right, absent}}, 1: {{right, miss}, {cannot, miss}, {miss, cannot}}, 3: {{right, cannot, absent}},
	} {
		for _, s := range scores {
			if got := codeOfScores(s); got != want {
				t.Errorf("%+v gives %d, want %d", s, got, want)
			}
		}
	}
	works, other := proof.ProvedChange{Verdict: proof.Works}, proof.ProvedChange{Verdict: proof.NotShown}
	unproved := proof.ProvedChange{Cannot: "kept once for the host"}
	for want, changes := range map[int][][]proof.ProvedChange{
		0: {{}, {works, works}}, 1: {{works, other}, {unproved, other}, {other, unproved}}, 3: {{works, unproved}},
	} {
		for _, c := range changes {
			if got := codeOfProved(c); got != want {
				t.Errorf("%+v gives %d, want %d", c, got, want)
			}
		}
	}
}

// Help tells the exit codes of commands that there are, and each says when it is 0 and
// when the command line is wrong.
func TestOutcomesAreOfCommands(t *testing.T) {
	for name, of := range outcomesOf {
		c, rest, err := Root().Find(strings.Fields(name))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s is no command", name)
			continue
		}
		if of[0].Code != exitOK || !slices.ContainsFunc(of, func(o Outcome) bool { return o.Code == exitUsage }) {
			t.Errorf("%s: %+v", name, of)
		}
		if strings.Contains(c.Long, "The exit code is ") && !strings.HasSuffix(c.Long, "\n\n"+ExitCodes(name)) {
			t.Errorf("the help of %s ends in other exit codes", name)
		}
	}
}
