package cli

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"linger/internal/collect"
	"linger/internal/diagnose"
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
		{fmt.Errorf("read: %w", collect.ErrNoNamespace), 3},
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
