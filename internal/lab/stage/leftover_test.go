package stage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"linger/internal/lab/stage"
)

// What a killed laboratory left goes, and what a living one uses stays.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(os.TempDir(), fmt.Sprintf("linger-lab-%d-1", ended.ProcessState.Pid()))
	used := filepath.Join(os.TempDir(), fmt.Sprintf("linger-lab-%d-1", os.Getpid()))
	other := filepath.Join(os.TempDir(), "linger-lab-notes")
	for _, dir := range []string{left, used, other} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := stage.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s is still there", left)
	}
	for _, dir := range []string{used, other} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}
