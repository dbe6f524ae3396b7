package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"linger/internal/snapshot"
)

// withoutProc runs linger where /proc is not mounted, in a mount namespace of
// its own.
func withoutProc(t *testing.T, args ...string) []byte {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can unmount /proc for a process")
	}
	linger, err := exec.LookPath("linger")
	if err != nil {
		t.Fatal(err)
	}
	script := `mount --make-rprivate / && umount -l /proc && exec "$0" "$@"`
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, linger}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// TestWithoutProc: sockets need no /proc. All that does is named as a gap, and
// nothing becomes a zero.
func TestWithoutProc(t *testing.T) {
	text := strings.Join(strings.Fields(string(withoutProc(t, "--fail-on", "never"))), " ")
	if !strings.Contains(text, "GAPS") || !strings.Contains(text, "needs a mounted /proc") {
		t.Errorf("what is missing is not named:\n%s", text)
	}
	var document struct {
		Namespaces []snapshot.Namespace
		Unknown    []struct{ Problem, Needs string }
		Gaps       []snapshot.Gap
	}
	if err := json.Unmarshal(withoutProc(t, "--fail-on", "never", "-o", "json"), &document); err != nil {
		t.Fatal(err)
	}
	own := slices.IndexFunc(document.Namespaces, func(ns snapshot.Namespace) bool { return ns.Own })
	if own < 0 || !document.Namespaces[own].SocketsRead {
		t.Fatalf("of %d namespaces linger's own was not read: %+v", len(document.Namespaces), document.Gaps)
	}
	for _, ns := range document.Namespaces {
		if len(ns.Settings) > 0 || len(ns.Counters.Total) > 0 || ns.Sockstat != nil {
			t.Errorf("known of %s without /proc: %d settings, %d counters, %v", ns.Label, len(ns.Settings), len(ns.Counters.Total), ns.Sockstat)
		}
	}
	judged := map[string]bool{}
	for _, u := range document.Unknown {
		judged[u.Problem] = true
	}
	for _, problem := range []string{"time-wait-overflow", "fin-timeout"} {
		if !judged[problem] {
			t.Errorf("%s is judged without its setting; unknown are %v", problem, document.Unknown)
		}
	}
}
