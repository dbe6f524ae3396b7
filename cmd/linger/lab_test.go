package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C in the middle of a build ends it at once, and leaves no process and no
// namespace behind.
func TestInterruptedLabLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var stderr bytes.Buffer
	// Seeds with several hosts, one of which waits a while.
	linger := exec.CommandContext(ctx, "linger", "lab", "random", "--seed", "43", "--count", "4")
	linger.Stderr = &stderr
	if err := linger.Start(); err != nil {
		t.Fatal(err)
	}
	netns := map[string]bool{}
	var workers []int
	for len(workers) < 4 {
		if ctx.Err() != nil {
			t.Fatalf("no worker was started: %v\n%s", ctx.Err(), stderr.String())
		}
		time.Sleep(20 * time.Millisecond)
		workers = children(linger.Process.Pid)
		for _, pid := range workers {
			if link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/net")); err == nil {
				netns[link] = true
			}
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil || netns[own] {
		t.Fatalf("a worker is in %s, the namespace of the test: %v", own, err)
	}
	if err := linger.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = linger.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(stderr.String(), "interrupt") {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	for _, pid := range workers {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range links {
		if link, err := os.Readlink(path); err == nil && netns[link] {
			t.Errorf("%s is still %s", path, link)
		}
	}
}

// children are the processes whose parent a process is.
func children(parent int) (pids []int) {
	tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(parent), "task/*/children"))
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
