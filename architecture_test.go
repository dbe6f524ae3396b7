// Package linger_test holds what must be true of the house as a whole.
package linger_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab"
)

// arrows are the imports that rooms may have of each other; what is not here is
// forbidden. A room ending in /* stands for the rooms below it.
var arrows = map[string][]string{
	"internal/tcp":      {},
	"internal/figure":   {},
	"internal/capacity": {"internal/tcp"},
	"internal/snapshot": {"internal/tcp"},
	"internal/diagnose": {"internal/figure", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/sockets":  {"internal/figure", "internal/diagnose", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/remedy":   {"internal/figure", "internal/diagnose", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/plan":     {"internal/figure", "internal/remedy", "internal/diagnose", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/kernel/*": {"internal/tcp"},
	"internal/change":   {"internal/plan", "internal/diagnose", "internal/kernel/*", "internal/tcp"},
	"internal/collect":  {"internal/kernel/*", "internal/snapshot", "internal/tcp"},
	"internal/lab/wire": {"internal/kernel/*"},
	"internal/proof":    {"internal/snapshot", "internal/diagnose"},
	"internal/lab":      {"internal/proof", "internal/lab/wire", "internal/kernel/*", "internal/collect", "internal/diagnose", "internal/remedy", "internal/snapshot", "internal/tcp"},
	"internal/story":    {"internal/figure", "internal/sockets", "internal/proof", "internal/plan", "internal/diagnose", "internal/remedy", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/render":   {"internal/story", "internal/figure", "internal/sockets", "internal/proof", "internal/plan", "internal/diagnose", "internal/remedy", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/explain":  {},
	"docs":              {},
	"internal/cli":      {"internal/figure", "docs", "internal/explain", "internal/collect", "internal/diagnose", "internal/remedy", "internal/sockets", "internal/plan", "internal/change", "internal/lab", "internal/proof", "internal/render", "internal/story", "internal/snapshot", "internal/tcp"},
	"cmd/linger":        {"internal/cli", "internal/lab"},
	"scripts/man":       {"internal/cli"},
	"kernels":           {},
	"bench":             {"internal/lab", "internal/kernel/*", "internal/tcp", "internal/proof"},
}

// pure rooms compute: they read no host, no file and no clock, and so import
// nothing that could.
var pure = []string{"internal/figure", "internal/tcp", "internal/capacity", "internal/snapshot", "internal/diagnose", "internal/sockets", "internal/remedy", "internal/plan", "internal/proof", "internal/story"}

var impure = []string{"os", "os/exec", "net", "net/http", "syscall", "log", "log/slog", "golang.org/x/sys/unix"}

// heavy libraries belong to the agent and stay out of linger, which is copied to
// broken hosts.
var heavy = []string{"github.com/prometheus/prometheus", "github.com/prometheus/client_golang", "go.opentelemetry.io", "net/http"}

func TestArrows(t *testing.T) {
	rooms := imports(t)
	for room, imported := range rooms {
		allowed, known := arrowsOf(room)
		if !known {
			t.Errorf("room %s has no arrows: add it to the architecture, and here", room)
			continue
		}
		for _, other := range imported {
			if own, isOwn := strings.CutPrefix(other, "linger/"); isOwn && !slices.ContainsFunc(allowed, func(a string) bool { return names(a, own) }) {
				t.Errorf("%s imports %s, which is not among its arrows %v", room, own, allowed)
			}
			if slices.Contains(pure, room) && slices.Contains(impure, other) {
				t.Errorf("%s imports %s: it computes, and reads nothing", room, other)
			}
			for _, library := range heavy {
				if other == library || strings.HasPrefix(other, library+"/") {
					t.Errorf("%s imports %s, which is too heavy for linger", room, other)
				}
			}
		}
	}
	for room := range arrows {
		if !strings.HasSuffix(room, "/*") && rooms[room] == nil {
			t.Errorf("the architecture has a room %s that does not exist", room)
		}
	}
}

// Each problem has all its rooms, under its slug.
func TestSlugs(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range diagnose.Rules() {
		slug := string(rule.Slug)
		for _, file := range []string{
			"internal/diagnose/" + slug + ".go",
			"internal/lab/" + slug + ".go",
			"docs/problems/" + slug + ".md",
		} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("problem %s: %v", slug, err)
			}
		}
		if !slices.ContainsFunc(lab.Scenarios(), func(s lab.Scenario) bool { return s.Slug == rule.Slug }) {
			t.Errorf("problem %s is not built by the laboratory", slug)
		}
		if !strings.Contains(string(readme), "docs/problems/"+slug+".md") {
			t.Errorf("problem %s is not in the README's table", slug)
		}
	}
	pages, err := filepath.Glob("docs/problems/*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != len(diagnose.Rules()) {
		t.Errorf("%d pages for %d problems: %v", len(pages), len(diagnose.Rules()), pages)
	}
}

// Only the room of change and the laboratory write settings.
func TestWhoWrites(t *testing.T) {
	writers := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		if strings.Contains(string(text), "sysctl.Write(") {
			writers[path.Dir(filepath.ToSlash(file))] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(writers) != 2 || !writers["internal/change"] || !writers["internal/lab"] {
		t.Errorf("settings are written in %v", writers)
	}
}

// Text that a person reads as a limit of the project.
func TestSizes(t *testing.T) {
	for file, most := range map[string]int{"Makefile": 60, "ARCHITECTURE.md": 120} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if lines := strings.Count(string(text), "\n"); lines >= most {
			t.Errorf("%s has %d lines, want fewer than %d", file, lines, most)
		}
	}
}

func arrowsOf(room string) ([]string, bool) {
	for name, allowed := range arrows {
		if names(name, room) {
			return allowed, true
		}
	}
	return nil, false
}

func names(pattern, room string) bool {
	above, isPattern := strings.CutSuffix(pattern, "/*")
	if isPattern {
		return strings.HasPrefix(room, above+"/")
	}
	return pattern == room
}

// imports are those of each room's own code, its tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	rooms := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && file != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := path.Dir(filepath.ToSlash(file))
		if rooms[room] == nil {
			rooms[room] = []string{}
		}
		for _, spec := range parsed.Imports {
			rooms[room] = append(rooms[room], strings.Trim(spec.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rooms
}
