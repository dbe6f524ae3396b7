package linger_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A problem costs three files and two lines: its rule, its page and its laboratory case, a line among
// the rules and one among the cases. So one can be taken away, and what is left builds and knows
// nothing of it.
func TestWhatAProblemCosts(t *testing.T) {
	const slug, rule, laboratory = "fin-timeout", "finTimeoutRule", "finTimeout"
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// What go build sees in place of the files: no file for an empty path.
	instead := map[string]string{}
	for _, file := range []string{"internal/diagnose/" + slug + ".go", "docs/problems/" + slug + ".md", "internal/lab/cases/" + slug + ".go"} {
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		instead[filepath.Join(root, file)] = ""
	}
	dir := t.TempDir()
	for file, line := range map[string]string{"internal/diagnose/rules.go": rule, "internal/lab/cases/case.go": laboratory} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		without := strings.Replace(string(text), "\t\t"+line+",\n", "", 1)
		if without == string(text) {
			t.Fatalf("%s has no line %s", file, line)
		}
		copied := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(copied, []byte(without), 0o600); err != nil {
			t.Fatal(err)
		}
		instead[filepath.Join(root, file)] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": instead})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "linger")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/linger")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("without %s: %v\n%s", slug, err, out)
	}
	if err := exec.Command(program, "explain", slug).Run(); err == nil {
		t.Errorf("linger still explains %s", slug)
	}
	experiments, err := exec.Command(program, "lab", "list").Output()
	if err != nil || strings.Contains("\n"+string(experiments), "\n"+slug+"\n") {
		t.Errorf("linger lab list: %v, or it still has the experiment %s", err, slug)
	}
}
