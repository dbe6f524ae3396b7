package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"linger/internal/cli"
)

// Each command that help tells of has its page, with its examples, and no page is of
// a hidden one.
func TestEachCommandHasItsPage(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"linger.1": true}
	for _, c := range cli.Root().Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		name := "linger-" + c.Name() + ".1"
		want[name] = true
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if !strings.Contains(string(text), ".SH NAME") || c.Example != "" && !strings.Contains(string(text), ".SH EXAMPLE") {
			t.Errorf("%s lacks its name or its examples", name)
		}
	}
	for _, page := range pages {
		name := filepath.Base(page)
		if strings.Count(name, "-") <= 1 && !want[name] {
			t.Errorf("%s is of no command", name)
		}
	}
}
