// Package netnstest gives tests network namespaces of their own, and programs that run inside. Tests alone import it.
package netnstest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
)

// New makes a namespace that holds nothing but a loopback interface, which is up, and lets go of it after the test.
// Who may not make one skips the test; .ci/run fails on a test that was skipped.
func New(t testing.TB) *netns.Handle {
	t.Helper()
	h, err := netns.New()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("needs CAP_SYS_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close the network namespace: %v", err)
		}
	})
	return h
}

// Do runs do inside the namespace. It may be on another goroutine than the test's, and so reports by t.Error.
func Do(t testing.TB, h *netns.Handle, do func()) {
	t.Helper()
	if err := h.Do(func() error { do(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// Set writes a sysctl of the namespace, such as net.ipv4.tcp_tw_reuse.
func Set(t testing.TB, h *netns.Handle, key, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// KeepTimeWait has the TIME_WAIT sockets of the namespace stay for their 60 s. Else, once in a thousand connections or
// so over loopback, and more often under load, the kernel itself ends one at once: the ACK of the first FIN is sent in
// softirq by one CPU, the second FIN by another, on which its sender was woken, and they arrive the other way
// round. TIME_WAIT answers the late ACK; the socket that sent it is gone by then, its side sends a reset, and that
// ends TIME_WAIT unless tcp_rfc1337 is set (tcp_timewait_state_process of net/ipv4/tcp_minisocks.c).
func KeepTimeWait(t testing.TB, h *netns.Handle) {
	t.Helper()
	Set(t, h, "net.ipv4.tcp_rfc1337", "1")
}

// Start starts a program inside the namespace, and ends it with its children after the test.
func Start(t testing.TB, h *netns.Handle, cmd *exec.Cmd) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := h.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait() // an error is that it was killed, or that the test has waited
	})
}
