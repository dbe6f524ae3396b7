package stage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
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

// A program that a worker runs ends with the worker, and so does what it has started.
func TestProgramsEndWithTheirWorker(t *testing.T) {
	t.Parallel()
	n := stagetest.Loopback(t)
	w, err := n.Start(stagetest.Context(t), "lab-keeper")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "beat")
	// It and its child touch the file again and again.
	if err := w.Run(stagetest.Context(t), "sh", "-c",
		fmt.Sprintf("while :; do touch %[1]s; sleep 0.05; done & while :; do touch %[1]s; sleep 0.05; done", file)); err != nil {
		t.Fatal(err)
	}
	await := func(what string, is func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	await("the program does not run", func() bool { _, err := os.Stat(file); return err == nil })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	await("the program outlives its worker", func() bool {
		_ = os.Remove(file)
		time.Sleep(500 * time.Millisecond) // ten times as long as it takes to touch it again
		_, err := os.Stat(file)
		return os.IsNotExist(err)
	})
}
