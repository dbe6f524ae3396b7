package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"linger/internal/kernel/netns/netnstest"
)

// leftovers is a namespace with n sockets in TIME_WAIT towards a service, and its path.
func leftovers(t *testing.T, n int) (path, service string) {
	t.Helper()
	h := netnstest.New(t)
	netnstest.KeepTimeWait(t, h)
	err := h.Do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		service = l.Addr().String()
		for range n {
			c, err := net.Dial("tcp", service)
			if err != nil {
				return err
			}
			s, err := l.Accept()
			if err != nil {
				return err
			}
			if err := errors.Join(c.Close(), s.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.FD()), service
}

// reaped is what linger reap -o json tells.
type reaped struct {
	Sockets int
	Outcome *struct{ Reaped, Gone, Left int }
}

func runReap(t *testing.T, args ...string) (told reaped, code int, stderr string) {
	t.Helper()
	linger := exec.CommandContext(t.Context(), "linger", append([]string{"reap", "-o", "json"}, args...)...)
	var out, errs bytes.Buffer
	linger.Stdout, linger.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := linger.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		err := follows("reap", out.String())
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &told)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out.Bytes())
		}
	}
	return told, linger.ProcessState.ExitCode(), errs.String()
}

// A dry run and a missing --yes do nothing; then all go, and the next look finds none.
func TestReap(t *testing.T) {
	path, service := leftovers(t, 50)
	dir := t.TempDir()
	reap := func(args ...string) (reaped, int, string) {
		return runReap(t, append([]string{"--netns", path, "--remote", service, "--state-dir", dir}, args...)...)
	}
	// The last segments may still be on their way.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		told, code, stderr := reap("--dry-run")
		if code == 0 && told.Sockets == 50 && told.Outcome == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("dry run: %+v, exit code %d, %s", told, code, stderr)
		}
	}
	if _, code, stderr := reap(); code != 1 || !strings.Contains(stderr, "--yes") {
		t.Errorf("without a terminal: exit code %d, %q", code, stderr)
	}
	if told, code, stderr := reap("--yes"); code != 0 || told.Outcome == nil || told.Outcome.Reaped != 50 {
		t.Fatalf("reap: %+v, exit code %d, %s", told, code, stderr)
	}
	if told, code, _ := reap("--dry-run"); code != 0 || told.Sockets != 0 {
		t.Errorf("after it: %+v, exit code %d", told, code)
	}
	history, err := exec.CommandContext(t.Context(), "linger", "history", "--state-dir", dir).CombinedOutput()
	for _, want := range []string{"REAPED  50 sockets", "50 reaped, 0 had gone, 0 left"} {
		if err != nil || !strings.Contains(string(history), want) {
			t.Errorf("history: %v, want %q in it\n%s", err, want, history)
		}
	}
	if journal, err := os.ReadFile(filepath.Join(dir, "journal")); err != nil || strings.Count(string(journal), "\n") != 2 {
		t.Errorf("journal: %v\n%s", err, journal)
	}
}

// Without rights it says what it needs, and does nothing.
func TestReapWithoutRights(t *testing.T) {
	c, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, err := net.Dial("tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	state := t.TempDir()
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	linger := asNobody(t, "reap", "--remote", c.Addr().String(), "--states", "established", "--yes", "--state-dir", state)
	out, err := linger.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "CAP_NET_ADMIN") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Errorf("the connection: %v", err)
	}
}
