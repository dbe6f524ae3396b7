// Package linger_test holds what must be true of the house as a whole.
package linger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
)

// arrows are the imports that rooms have of each other; what is not here is forbidden, and what
// is here must be used. A room ending in /* stands for the rooms below it.
var arrows = map[string][]string{
	"internal/tcp":      {},
	"internal/figure":   {},
	"internal/setting":  {},
	"internal/capacity": {"internal/tcp"},

	"internal/snapshot":       {"internal/setting", "internal/tcp"},
	"internal/snapshot/group": {"internal/setting", "internal/snapshot", "internal/tcp"},

	"internal/diagnose": {"internal/figure", "internal/setting", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/sockets":  {"internal/diagnose", "internal/snapshot", "internal/capacity", "internal/tcp"},
	"internal/remedy": {
		"internal/figure", "internal/setting", "internal/diagnose", "internal/snapshot", "internal/capacity", "internal/tcp",
	},
	"internal/plan":  {"internal/setting", "internal/remedy", "internal/diagnose", "internal/snapshot", "internal/tcp"},
	"internal/proof": {"internal/snapshot", "internal/diagnose"},
	"internal/deed":  {"internal/plan", "internal/diagnose", "internal/tcp"},

	"internal/kernel/*":               {"internal/setting", "internal/tcp"},
	"internal/kernel/netns/netnstest": {"internal/kernel/*", "internal/setting"},
	"internal/collect": {
		"internal/kernel/*", "internal/setting", "internal/snapshot", "internal/snapshot/group", "internal/tcp",
	},

	"internal/journal": {},
	"internal/change": {
		"internal/journal", "internal/deed", "internal/plan", "internal/diagnose", "internal/snapshot", "internal/kernel/*",
	},
	"internal/reap": {"internal/journal", "internal/deed", "internal/kernel/*", "internal/tcp"},

	"internal/lab/wire":      {"internal/kernel/*"},
	"internal/lab/stage":     {"internal/lab/wire", "internal/kernel/*", "internal/setting", "internal/tcp"},
	"internal/lab/stagetest": {"internal/lab/stage", "internal/tcp"},
	"internal/lab":           {"internal/lab/stage", "internal/proof", "internal/setting", "internal/diagnose", "internal/tcp"},
	"internal/lab/cases": {
		"internal/lab", "internal/lab/stage", "internal/lab/wire", "internal/proof", "internal/collect", "internal/setting",
		"internal/diagnose", "internal/tcp",
	},
	"internal/lab/score": {
		"internal/lab", "internal/lab/cases", "internal/lab/stage", "internal/proof", "internal/collect", "internal/setting",
		"internal/diagnose",
	},
	"internal/lab/prove": {
		"internal/lab", "internal/lab/cases", "internal/lab/stage", "internal/proof", "internal/kernel/*", "internal/setting", "internal/tcp",
	},

	"internal/story": {
		"internal/figure", "internal/sockets", "internal/proof", "internal/plan", "internal/deed", "internal/diagnose", "internal/remedy",
		"internal/snapshot", "internal/capacity", "internal/tcp",
	},
	"internal/render": {
		"internal/story", "internal/figure", "internal/sockets", "internal/proof", "internal/plan", "internal/deed", "internal/diagnose",
		"internal/remedy", "internal/snapshot", "internal/capacity", "internal/tcp",
	},
	"internal/explain": {},
	"docs":             {},
	"internal/cli": {
		"docs", "internal/explain", "internal/collect", "internal/diagnose", "internal/remedy", "internal/sockets", "internal/story",
		"internal/setting", "internal/plan", "internal/deed", "internal/journal", "internal/change", "internal/reap", "internal/lab",
		"internal/lab/cases", "internal/lab/score", "internal/lab/prove", "internal/lab/stage", "internal/proof", "internal/render",
		"internal/snapshot", "internal/tcp",
	},
	"cmd/linger":  {"internal/cli", "internal/lab/stage"},
	"scripts/man": {"internal/cli"},
	"kernels":     {},
	"bench":       {"internal/lab/stage", "internal/proof"},
}

// pure rooms compute: they read no host, no file and no clock.
var pure = []string{
	"internal/tcp", "internal/figure", "internal/setting", "internal/capacity", "internal/snapshot", "internal/snapshot/group",
	"internal/diagnose", "internal/sockets", "internal/remedy", "internal/plan", "internal/proof", "internal/deed",
	"internal/story",
}

// unfit are packages that a pure room neither imports nor reaches through another room.
var unfit = []string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "log", "log/slog", "runtime/debug"}

// libraries are the modules of others that a program may link, in all that it is made of; what is
// here must be used. linger is copied to broken hosts: what belongs to an agent stays out of it.
var libraries = map[string][]string{
	"cmd/linger": {
		"github.com/cilium/ebpf", "github.com/fsnotify/fsnotify", "github.com/go-viper/mapstructure/v2", "github.com/google/nftables",
		"github.com/knadh/koanf/maps", "github.com/knadh/koanf/parsers/yaml", "github.com/knadh/koanf/providers/file",
		"github.com/knadh/koanf/v2", "github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/mitchellh/copystructure",
		"github.com/mitchellh/reflectwalk", "github.com/prometheus/procfs", "github.com/spf13/cobra", "github.com/spf13/pflag",
		"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/yuin/goldmark", "go.yaml.in/yaml/v3",
		"golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys",
	},
}

// heavy packages of the standard library stay out of linger, too.
var heavy = []string{"net/http", "database/sql", "net/rpc"}

const module = "linger/"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
}

// packages are all that this module is made of, by import path: its own, those of others, and those of
// the standard library.
var packages = sync.OnceValues(func() (map[string]*pkg, error) {
	var complaint bytes.Buffer
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard,Module", "./...")
	list.Stderr = &complaint
	out, err := list.Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(complaint.String()))
	}
	all := map[string]*pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[p.ImportPath] = &p
	}
})

func list(t *testing.T) map[string]*pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestArrows(t *testing.T) {
	all := list(t)
	used := map[string]map[string]bool{}
	for path, p := range all {
		room, own := strings.CutPrefix(path, module)
		if !own {
			continue
		}
		name, known := roomOf(room)
		if !known {
			t.Errorf("room %s has no arrows: add it to the architecture, and here", room)
			continue
		}
		if used[name] == nil {
			used[name] = map[string]bool{}
		}
		for _, other := range p.Imports {
			to, own := strings.CutPrefix(other, module)
			if !own {
				continue
			}
			at := slices.IndexFunc(arrows[name], func(a string) bool { return names(a, to) })
			if at < 0 {
				t.Errorf("%s imports %s, which is not among its arrows %v", room, to, arrows[name])
				continue
			}
			used[name][arrows[name][at]] = true
		}
	}
	for name, allowed := range arrows {
		if used[name] == nil {
			t.Errorf("the architecture has a room %s that does not exist", name)
		}
		for _, to := range allowed {
			if used[name] != nil && !used[name][to] {
				t.Errorf("%s may import %s, and nobody there does: take the arrow away", name, to)
			}
		}
	}
}

// What a pure room computes hangs on no host: neither it nor any room that it reaches imports
// what could read one, and no library comes along.
func TestPurity(t *testing.T) {
	all := list(t)
	for _, room := range pure {
		p := all[module+room]
		if p == nil {
			t.Errorf("no room %s", room)
			continue
		}
		for _, path := range append([]string{p.ImportPath}, p.Deps...) {
			dep := all[path]
			if dep.Module != nil && !strings.HasPrefix(path, module) {
				t.Errorf("%s links %s: it computes, and needs no library", room, path)
			}
			if dep.Standard {
				continue
			}
			for _, imported := range dep.Imports {
				if slices.Contains(unfit, imported) {
					t.Errorf("%s reaches %s by %s: it computes, and reads nothing", room, imported, path)
				}
			}
		}
		if slices.Contains(p.Deps, "net") {
			t.Errorf("%s links net, which reads the host", room)
		}
	}
}

// The whole of what a program is made of is known.
func TestLibraries(t *testing.T) {
	all := list(t)
	for room, allowed := range libraries {
		linked := map[string]bool{}
		for _, path := range all[module+room].Deps {
			dep := all[path]
			switch {
			case dep.Standard && slices.Contains(heavy, path):
				t.Errorf("%s links %s, which is too heavy for it", room, path)
			case dep.Module != nil && !strings.HasPrefix(path, module):
				linked[dep.Module.Path] = true
			}
		}
		for _, library := range slices.Sorted(maps.Keys(linked)) {
			if !slices.Contains(allowed, library) {
				t.Errorf("%s links %s, which is not among its libraries", room, library)
			}
		}
		for _, library := range allowed {
			if !linked[library] {
				t.Errorf("%s may link %s, and does not: take it away", room, library)
			}
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
			"internal/lab/cases/" + slug + ".go",
			"docs/problems/" + slug + ".md",
		} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("problem %s: %v", slug, err)
			}
		}
		if !slices.ContainsFunc(cases.All(), func(c cases.Case) bool { return c.Scenario != nil && c.Scenario.Slug == rule.Slug }) {
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

// Only the room of change and the laboratory write settings; only these and the room of reaping touch what was journalled,
// and only reaping destroys sockets.
func TestWhoWrites(t *testing.T) {
	for call, want := range map[string][]string{
		"sysctl.Write(":    {"internal/change", "internal/lab/stage"},
		".Destroy(":        {"internal/reap"},
		"journal.Open(":    {"internal/change", "internal/reap"},
		"journal.TryOpen(": {"internal/change"},
	} {
		callers := map[string]bool{}
		err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			text, err := os.ReadFile(file)
			if strings.Contains(string(text), call) {
				callers[path.Dir(filepath.ToSlash(file))] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(callers)); !slices.Equal(got, want) {
			t.Errorf("%s) is called in %v, want %v", call, got, want)
		}
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

// roomOf is the name under which a room has arrows: its own before that of the rooms around it.
func roomOf(room string) (string, bool) {
	if arrows[room] != nil {
		return room, true
	}
	for name := range arrows {
		if names(name, room) {
			return name, true
		}
	}
	return "", false
}

func names(pattern, room string) bool {
	above, isPattern := strings.CutSuffix(pattern, "/*")
	if isPattern {
		return strings.HasPrefix(room, above+"/")
	}
	return pattern == room
}
