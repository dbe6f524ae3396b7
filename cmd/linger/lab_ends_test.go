package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A user without privileges measures in a user namespace of their own.
func TestLabWithoutRoot(t *testing.T) {
	t.Parallel()
	linger := asNobody(t, "lab", "run", "bind-before-connect", "--remedy", "no-port", "--quick", "--color", "never")
	out, err := linger.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "all as expected") || !strings.Contains(string(out), "works") {
		t.Errorf("got:\n%s", out)
	}
}

// What needs more than a user namespace gives says so, and the rest goes on.
func TestLabWithoutRootSaysWhatItCannot(t *testing.T) {
	t.Parallel()
	linger := asNobody(t, "lab", "run", "memory-limit", "bind-before-connect", "--remedy", "no-port", "--quick", "--color", "never")
	out, err := linger.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v, want exit code 3", err)
	}
	for _, want := range []string{"cannot run here: control group: ", "permission denied", "works"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
}

// Where the system allows no user namespace either, it says why in one line. The limit
// is that of a user namespace around it, so that the host's stays.
func TestLabWhereNoNamespaceIsAllowed(t *testing.T) {
	linger := asNobody(t, "lab", "run", "bind-before-connect", "--quick")
	const script = `echo 0 >/proc/sys/user/max_user_namespaces &&
		exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"`
	linger.Args = append([]string{"sh", "-c", script, "sh", linger.Path}, linger.Args[1:]...)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	linger.Path = shell
	both := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: nobody, HostID: nobody, Size: 1}}
	linger.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: both, GidMappings: both, GidMappingsEnableSetgroups: true,
	}
	before, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	linger.Stdout, linger.Stderr = &stdout, &stderr
	err = linger.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v, want exit code 3", err)
	}
	const want = "lets nobody but root make a network namespace"
	if stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), want) {
		t.Errorf("writes %q, and says %q", stdout.String(), stderr.String())
	}
	if after, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the host's limit was %s and is %s: %v", before, after, err)
	}
}

// However a run ends, no process, and with it no namespace, device or rule, is left
// behind; names that a killed one leaves are gone after the next.
func TestLabLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		// file is what the run makes outside of its namespaces, a pattern that follows the
		// number of its process; empty for nothing.
		file string
	}{
		{"wires and a NAT", []string{"tw-recycle", "syn-on-time-wait"}, ""},
		{"a translation and firewalls", []string{"nat-port-exhaustion", "vanished-connections"}, ""},
		{"control groups", []string{"resource-pressure"}, "/sys/fs/cgroup/cpu/linger-lab-%d-*"},
		{"servers", []string{"proxy-without-keepalive"}, "TMP/linger-lab-%d-*"},
	} {
		for _, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(c.name+", "+end.String(), func(t *testing.T) {
				t.Parallel()
				if os.Getuid() != 0 {
					t.Skip("only root can make control groups and read what others run")
				}
				interruptLab(t, c.args, c.file, end)
			})
		}
	}
}

func interruptLab(t *testing.T, args []string, file string, end syscall.Signal) {
	t.Helper()
	dir := t.TempDir()
	marker := "LINGER_TEST_MARKER=" + dir
	linger := labCommand(t, dir, append([]string{"run", "--repeat", "4"}, args...)...)
	linger.Env = append(linger.Env, marker)
	var told bytes.Buffer
	linger.Stderr = &told
	// As a terminal does it: Ctrl-C reaches all of the group, and so the workers too.
	linger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := linger.Start(); err != nil {
		t.Fatal(err)
	}
	if file != "" {
		file = fmt.Sprintf(strings.Replace(file, "TMP", dir, 1), linger.Process.Pid)
		if !isDir("/sys/fs/cgroup/cpu") {
			file = strings.Replace(file, "/cpu/", "/", 1) // version 2
		}
	}
	awaitIn(t, "the run is in the middle", func() bool {
		return len(marked(t, marker)) > 2 && (file == "" || len(glob(t, file)) > 0)
	})
	target := -linger.Process.Pid
	if end == syscall.SIGKILL {
		target = linger.Process.Pid // the workers have to notice by themselves
	}
	if err := syscall.Kill(target, end); err != nil {
		t.Fatal(err)
	}
	err := linger.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || end != syscall.SIGKILL && exit.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit code 3: %s", err, &told)
	}
	awaitIn(t, "its processes end", func() bool { return len(marked(t, marker)) == 0 })
	if file == "" {
		return
	}
	if end == syscall.SIGKILL {
		next := labCommand(t, dir, "run", "address-in-use", "--remedy", "reuseaddr", "--quick")
		if out, err := next.CombinedOutput(); err != nil {
			t.Fatalf("the next run: %v\n%s", err, out)
		}
	}
	if left := glob(t, file); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// The process in a user namespace ends with the one that a user has started, and killed.
func TestLabInAUserNamespaceEndsWithItsParent(t *testing.T) {
	t.Parallel()
	marker := "LINGER_TEST_MARKER=" + t.TempDir()
	linger := asNobody(t, "lab", "run", "fin-timeout", "--quick")
	linger.Env = append(linger.Env, marker)
	if err := linger.Start(); err != nil {
		t.Fatal(err)
	}
	awaitIn(t, "the run is in the middle", func() bool { return len(marked(t, marker)) > 3 })
	if err := linger.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = linger.Wait()
	awaitIn(t, "its processes end", func() bool { return len(marked(t, marker)) == 0 })
}

// labCommand is linger lab with a directory of its own for temporary files.
func labCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "linger", append([]string{"lab"}, args...)...)
	c.Env = append(os.Environ(), "TMPDIR="+dir)
	return c
}

// marked are the processes that have the marker in their environment.
func marked(t *testing.T, marker string) (pids []string) {
	t.Helper()
	for _, file := range glob(t, "/proc/[0-9]*/environ") {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(marker+"\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func awaitIn(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
