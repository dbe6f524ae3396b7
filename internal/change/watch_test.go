package change

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"linger/internal/deed"
)

// Once the state directory is gone nobody can confirm: the watcher takes back what it
// remembers, makes no new directory, and leaves.
func TestAStateDirectoryThatIsRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dir = filepath.Join(w.dir, "state")
	w.apply(time.Hour)
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	w.await("the old values", func() bool { return w.values() == oldValues })
	w.await("the watcher's end", func() bool { return len(w.processes()) == 0 })
	if _, err := os.Stat(w.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there again: %v", err)
	}
}

// The copies of earlier programs go when no change is pending that may need one.
func TestOldProgramsAreRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := filepath.Join(w.dir, "program-0123456789abcdef")
	put := func() {
		t.Helper()
		if err := errors.Join(os.MkdirAll(old, 0o700), os.WriteFile(filepath.Join(old, "linger"), nil, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	put()
	first := w.apply(time.Minute)
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old program is still there: %v", err)
	}
	put()
	other := newWorld(t)
	other.dir = w.dir
	second := other.apply(time.Minute)
	if _, err := os.Stat(old); err != nil {
		t.Errorf("a pending change may need it: %v", err)
	}
	for _, e := range []*Entry{first, second} {
		if _, err := Rollback(w.dir, e.ID, false); err != nil {
			t.Error(err)
		}
	}
	if copies, _ := filepath.Glob(filepath.Join(w.dir, "program-*")); len(copies) != 2 {
		t.Errorf("programs %v", copies)
	}
}

// Where systemd runs the watcher is a service of its own, and a timer looks again at
// the deadline. The systemd-run here is no systemd: it writes down what it was asked
// for, and starts the service's command as systemd would.
func TestWatcherUnderSystemd(t *testing.T) {
	w := newWorld(t)
	fake := filepath.Join(w.dir, "systemd-run")
	script := `#!/bin/sh
echo "$*" >> "` + w.dir + `/asked"
for a; do case $a in --on-active=*) exit 0;; esac; done
while [ "${1#--}" != "$1" ]; do shift; done
setsid "$@" >/dev/null 2>&1 </dev/null &
`
	if err := os.WriteFile(fake, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	booted, run := systemdBooted, systemdRun
	systemdBooted, systemdRun = w.dir, fake
	defer func() { systemdBooted, systemdRun = booted, run }()
	e := w.apply(2 * time.Second)
	asked, err := os.ReadFile(filepath.Join(w.dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"--unit=linger-watch-" + e.ID, "--unit=linger-deadline-" + e.ID, "--timer-property=AccuracySec=100ms", "--on-active=",
		"watch --state-dir " + w.dir + " " + e.ID,
	} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("systemd-run was not asked for %s:\n%s", want, asked)
		}
	}
	w.await("the deadline", func() bool { return w.entry(e.ID).State == deed.Undone })

	systemdRun = "/bin/false"
	_, err = Apply(t.Context(), w.plan, Options{StateDir: w.dir, Within: time.Minute, Live: true})
	if err == nil || !strings.Contains(err.Error(), "start the watcher") || w.values() != oldValues {
		t.Errorf("without a watcher: values %v, %v", w.values(), err)
	}
}
