package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"linger/internal/cli"
)

// told are all commands that help tells of, by the names of their pages.
func told(c *cobra.Command) map[string]*cobra.Command {
	all := map[string]*cobra.Command{strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1": c}
	for _, below := range c.Commands() {
		if below.Hidden || below.Name() == "help" {
			continue
		}
		for name, c := range told(below) {
			all[name] = c
		}
	}
	return all
}

// pages writes all pages, and returns their directory and their names.
func pages(t *testing.T, epoch string) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	if err := run(dir, epoch); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return dir, names
}

func TestEachCommandHasItsPage(t *testing.T) {
	_, names := pages(t, "")
	commands := told(cli.Root())
	for _, name := range names {
		if commands[name] == nil {
			t.Errorf("%s is of no command", name)
		}
		delete(commands, name)
	}
	for name := range commands {
		t.Errorf("there is no %s", name)
	}
}

// A page bears the date of what it was made from, or none: never that of the day it was made.
func TestDate(t *testing.T) {
	for epoch, want := range map[string]string{"": `""`, "1767323045": `"2026-01-02"`} {
		dir, names := pages(t, epoch)
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if head, _, _ := strings.Cut(string(text), "\n"); !strings.Contains(head, " 1 "+want+" ") {
				t.Errorf("%s made from %q begins with %s", name, epoch, head)
			}
		}
	}
	if err := run(t.TempDir(), "yesterday"); err == nil {
		t.Error("a date that is none is taken")
	}
}

// man renders each page without a warning, in 80 columns, and what a reader sees is the
// help of the command, with all values that a flag takes, its exit codes and its files.
func TestAsManShowsThem(t *testing.T) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("needs man (Debian package man-db)")
	}
	dir, names := pages(t, "1767323045")
	commands := told(cli.Root())
	for _, name := range names {
		shown := rendered(t, filepath.Join(dir, name))
		c := commands[name]
		if c == nil {
			t.Errorf("%s is of no command", name)
			continue
		}
		command := strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "linger"), " ")
		want := []string{c.Short, strings.TrimSuffix(c.Long, cli.ExitCodes(command)), "2026-01-02"}
		sections := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "SEE ALSO"}
		if c.Example != "" {
			sections = append(sections, "EXAMPLES")
		}
		for line := range strings.Lines(c.Example) {
			want = append(want, line)
		}
		c.InitDefaultHelpFlag()
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			want = append(want, "--"+f.Name+" "+value+usage)
			if strings.Contains(value, "|") && f.DefValue != "" {
				want = append(want, usage+" (default "+f.DefValue+")")
			}
		})
		outcomes := cli.Outcomes(command)
		for _, o := range outcomes {
			with := ""
			if o.Flag != "" {
				with = "with " + o.Flag + ","
			}
			want = append(want, fmt.Sprint(o.Code)+with+strings.TrimSuffix(o.Means, ";"))
		}
		if codes := fmt.Sprint(outcomes); !strings.Contains(codes, "{0 ") || !strings.Contains(codes, "{64 ") {
			t.Errorf("%s has exit codes %s", name, codes)
		}
		for _, f := range cli.Files(c) {
			want = append(want, f.Path+f.Use)
		}
		for _, section := range sections {
			if !slices.Contains(strings.Split(shown, "\n"), section) {
				t.Errorf("%s has no section %s", name, section)
			}
		}
		for _, text := range want {
			if !strings.Contains(dense(shown), dense(text)) {
				t.Errorf("%s does not show %q", name, text)
			}
		}
	}
}

// dense is a text without its spaces and line breaks.
func dense(text string) string { return strings.Join(strings.Fields(text), "") }

// rendered is a page as man shows it in 80 columns.
func rendered(t *testing.T, page string) string {
	t.Helper()
	man := exec.CommandContext(t.Context(), "man", "--warnings=w", "-l", page)
	man.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
	var out, warnings bytes.Buffer
	man.Stdout, man.Stderr = &out, &warnings
	if err := man.Run(); err != nil || warnings.Len() > 0 {
		t.Errorf("%s: %v\n%s", page, err, warnings.Bytes())
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%s: %d columns: %s", page, n, line)
		}
	}
	return out.String()
}
