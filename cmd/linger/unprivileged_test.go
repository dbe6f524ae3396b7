package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"linger/internal/kernel/netns"
)

// nobody is the user and group that own nothing.
const nobody = 65534

// asNobody is linger as a user without privileges.
func asNobody(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	linger := exec.CommandContext(t.Context(), publicCopy(t), args...)
	linger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	linger.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	linger.Dir = "/"
	return linger
}

// publicCopy is the program where everybody may run it.
func publicCopy(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("linger")
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A child that is forked meanwhile would have it open for writing until it executes, and a file that
	// is open so cannot be executed (ETXTBSY of execve(2)).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	to, err := os.OpenFile(filepath.Join(dir, "linger"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}

// TestWithoutRootLingerDoesWhatItCan: it tells what it lacks, and that is no error.
func TestWithoutRootLingerDoesWhatItCan(t *testing.T) {
	linger := asNobody(t, "--window", "0", "--fail-on", "never", "-v")
	out, err := linger.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "GAPS") {
		t.Errorf("no gap is named:\n%s", out)
	}
}

// TestNamespaceThatMayNotBeEntered: where nothing chosen can be read there is one
// line that says what it needs, and exit code 3.
func TestNamespaceThatMayNotBeEntered(t *testing.T) {
	for _, netns := range []string{"1", otherNamespace(t)} {
		refusedOneLine(t, netns)
	}
}

// otherNamespace is the path of a namespace that anybody may open and only root
// may enter.
func otherNamespace(t *testing.T) string {
	t.Helper()
	h, err := netns.New()
	if err != nil {
		t.Skip("only root can make a namespace: ", err)
	}
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(fmt.Sprintf("/proc/self/fd/%d", h.FD()), path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		h.Close()
	})
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func refusedOneLine(t *testing.T, name string) {
	t.Helper()
	linger := asNobody(t, "--netns", name)
	var stdout, stderr bytes.Buffer
	linger.Stdout, linger.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := linger.Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("--netns %s: got %v, want exit code 3", name, err)
	}
	if stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "root") {
		t.Errorf("--netns %s: writes %q, and says %q", name, stdout.String(), stderr.String())
	}
}
