package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A program that a worker runs ends with the worker, and so does what it has started.
func TestProgramsEndWithTheirWorker(t *testing.T) {
	t.Parallel()
	topology, err := NewLoopback("alone")
	if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer topology.Close()
	w, err := topology.Nodes[0].Start(t.Context(), "lab-keeper")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "beat")
	// It and its child touch the file again and again.
	if err := w.run(t.Context(), "sh", "-c",
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
