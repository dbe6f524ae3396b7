package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"linger/internal/kernel/netns"
)

func TestConfirmedStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Minute)
	if w.values() != newValues || e.State != Applied {
		t.Fatalf("values %v, state %s", w.values(), e.State)
	}
	if _, err := Confirm(w.dir, e.ID); err != nil {
		t.Fatal(err)
	}
	w.await("the watcher's end", func() bool { return !isWatched(w.dir, e.ID) })
	if w.values() != newValues || w.entry(e.ID).State != Confirmed {
		t.Errorf("values %v, state %s", w.values(), w.entry(e.ID).State)
	}
	if _, err := Rollback(w.dir, e.ID, false); err != nil || w.values() != oldValues {
		t.Errorf("rollback: values %v, %v", w.values(), err)
	}
	if _, err := Rollback(w.dir, e.ID, false); err == nil || !strings.Contains(err.Error(), "nothing to take back") {
		t.Errorf("a second rollback: %v", err)
	}
}

func TestUnconfirmedIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Second)
	w.await("the deadline", func() bool { return w.entry(e.ID).State == Undone })
	if w.values() != oldValues || !strings.Contains(w.entry(e.ID).Reason, "not confirmed in time") {
		t.Errorf("values %v, reason %q", w.values(), w.entry(e.ID).Reason)
	}
	if _, err := Confirm(w.dir, e.ID); err == nil || !strings.Contains(err.Error(), "not confirmed in time") {
		t.Errorf("confirmed after the deadline: %v", err)
	}
}

// What others have changed since is theirs: it is kept, unless forced.
func TestRollbackKeepsWhatOthersChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Minute)
	w.set(keyTwo, "20000 50000")
	e, err := Rollback(w.dir, e.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := [2]string{oldOne, "20000 50000"}; w.values() != want {
		t.Errorf("values %v, want %v", w.values(), want)
	}
	if e.Outcomes[0].Result != Kept || e.Outcomes[0].Now != "20000 50000" || e.Outcomes[1].Result != Restored {
		t.Errorf("outcomes %+v", e.Outcomes)
	}

	w.set(keyTwo, oldTwo)
	e = w.apply(time.Minute)
	w.set(keyTwo, "20000 50000")
	if _, err := Rollback(w.dir, e.ID, true); err != nil || w.values() != oldValues {
		t.Errorf("forced: values %v, %v", w.values(), err)
	}
}

// A plan that no longer fits changes nothing, and says what to do.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*world, *Options)
		want string
	}{
		"another host":      {func(w *world, _ *Options) { w.plan.Host.Name = "elsewhere" }, "the plan is of host elsewhere"},
		"another boot":      {func(w *world, _ *Options) { w.plan.Host.BootID = "b" }, "another boot"},
		"another namespace": {func(w *world, _ *Options) { w.plan.Changes[1].Scope.Cookie++ }, "gone"},
		"another value":     {func(w *world, _ *Options) { w.set(keyTwo, "1100 2101") }, `is "1100 2101", and was "32768 60999" when the plan was made: plan again`},
		"not live":          {func(_ *world, o *Options) { o.Live = false }, "--live"},
		"no time":           {func(_ *world, o *Options) { o.Within = 999 * time.Millisecond }, "want a second at least"},
		"no change":         {func(w *world, _ *Options) { w.plan.Changes = nil }, "changes nothing"},
		"a key by hand":     {func(w *world, _ *Options) { w.plan.Changes[0].Key = "kernel.panic" }, "no key that linger changes"},
		"a value by hand":   {func(w *world, _ *Options) { w.plan.Changes[0].New = "7" }, "want a number from 0 to 2"},
		"an old by hand":    {func(w *world, _ *Options) { w.plan.Changes[0].Old = "0" }, `is "2", and was "0"`},
		"no state directory": {func(w *world, o *Options) {
			o.StateDir = filepath.Join(w.dir, "file", "state")
			if err := os.WriteFile(filepath.Join(w.dir, "file"), nil, 0o600); err != nil {
				w.t.Fatal(err)
			}
		}, "state directory"},
		"a damaged journal": {func(w *world, _ *Options) {
			if err := os.WriteFile(filepath.Join(w.dir, journalName), []byte("nonsense\n"), 0o600); err != nil {
				w.t.Fatal(err)
			}
		}, "the journal is damaged: line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := Options{StateDir: w.dir, Within: time.Minute, Guard: GuardWarn, Live: true}
			test.edit(w, &o)
			before := w.values()
			_, err := Apply(t.Context(), w.plan, o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if w.values() != before || len(w.watchers()) != 0 {
				t.Errorf("values %v became %v; watchers %v", before, w.values(), w.watchers())
			}
		})
	}
}

// Of two applies of the same keys at once one wins, and the other says which.
func TestTwoAppliesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const many = 4
	errs := make([]error, many)
	ids := make([]string, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			ids[i], _, errs[i] = deed{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Minute}.run()
		})
	}
	all.Wait()
	won := ""
	for i, err := range errs {
		if err == nil {
			if won != "" {
				t.Errorf("both %s and %s were applied", won, ids[i])
			}
			won = ids[i]
		} else if !strings.Contains(err.Error(), "is pending in change") {
			t.Errorf("the loser says %v", err)
		}
	}
	if won == "" {
		t.Fatal("none was applied")
	}
	defer w.endWatcher(won)
	if w.values() != newValues {
		t.Errorf("values %v", w.values())
	}
}

// Where /proc/sys cannot be written nothing is changed, and nothing is left pending.
func TestReadOnlySysctls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, err := deed{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Minute}.run(roEnv + "=1")
	if err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Fatalf("got %v", err)
	}
	w.settledAs(Undone, "read-only")
}

// settledAs wants one change in the journal, the old values, and no watcher.
func (w *world) settledAs(state Kind, reason string) {
	w.t.Helper()
	records, err := ReadJournal(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	entries, err := Entries(records)
	if err != nil || len(entries) != 1 || entries[0].State != state || !strings.Contains(entries[0].Reason, reason) {
		w.t.Fatalf("journal %+v, %v", entries, err)
	}
	if w.values() != oldValues {
		w.t.Errorf("values %v", w.values())
	}
	w.await("the watcher's end", func() bool { return len(w.watchers()) == 0 })
}

// With every amount of room on the disk, from none to enough, either all is applied or
// nothing is.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	applied, refused := 0, 0
	for _, room := range []int64{0, 4 << 10, self.Size() / 2, self.Size() + 4<<10, self.Size() + 32<<10, self.Size() + 1<<20} {
		dir := tinyDisk(t, fmt.Sprint(room+8<<10))
		id, _, err := deed{What: "apply", Dir: dir, Plan: w.plan, Within: time.Minute}.run()
		if err == nil {
			applied++
			if _, err := Rollback(dir, id, false); err != nil {
				t.Errorf("%d bytes: rollback: %v", room, err)
			}
		} else {
			refused++
		}
		if w.values() != oldValues {
			t.Fatalf("%d bytes: values %v, %v", room, w.values(), err)
		}
		other := &world{t: t, ns: w.ns, dir: dir}
		other.await("the watcher's end", func() bool { return len(other.watchers()) == 0 })
	}
	if applied == 0 || refused < 3 {
		t.Errorf("applied with %d sizes of disk, refused with %d", applied, refused)
	}
}

// A journal that is damaged while a change is pending keeps nobody from the old
// values; where it was cut, the journal goes on.
func TestDamageWhilePending(t *testing.T) {
	t.Parallel()
	t.Run("damaged", func(t *testing.T) {
		w := newWorld(t)
		e := w.apply(2 * time.Second)
		path := filepath.Join(w.dir, journalName)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		// One byte in its place: a file that is cut and written anew would be read in between.
		if _, err := f.WriteAt([]byte{'!'}, 20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := Confirm(w.dir, e.ID); !errors.Is(err, ErrCorrupt) {
			t.Errorf("confirmed: %v", err)
		}
		w.await("the old values", func() bool { return w.values() == oldValues })
		w.await("the watcher's end", func() bool { return len(w.watchers()) == 0 })
		said, err := os.ReadFile(filepath.Join(w.dir, "unrecorded-"+e.ID))
		if err != nil || !strings.Contains(string(said), "damaged") {
			t.Errorf("it says %q, %v", said, err)
		}
	})
	t.Run("cut", func(t *testing.T) {
		w := newWorld(t)
		e := w.apply(2 * time.Second)
		path := filepath.Join(w.dir, journalName)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()-3); err != nil {
			t.Fatal(err)
		}
		w.await("the old values", func() bool { return w.values() == oldValues })
		w.await("the journal", func() bool { return w.entry(e.ID).State == Undone })
	})
}

// The wall clock is for people alone: whatever it says, the deadline is by the time
// since boot. A clock that jumps is written here as a deadline that is off by a day.
func TestAClockThatJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"ahead": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			boot, now, err := clock()
			if err != nil {
				t.Fatal(err)
			}
			for due, late := range map[time.Duration]bool{-time.Second: true, time.Minute: false} {
				e := &Entry{State: Applied, Plan: w.plan, Deadline: time.Now().Add(due - jump), boot: boot, deadlineNS: int64(now + due)}
				if got, err := e.isLate(); err != nil || got != late {
					t.Errorf("due in %s: late %t, %v", due, got, err)
				}
			}
		})
	}
}

// After a boot the values are gone: nothing is written, and the journal says so.
func TestABootEndsAChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j, err := OpenJournal(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	j.now = func() (string, time.Duration, error) { return "another boot", time.Hour, nil }
	err = j.Append(Pending, "a", pendingDetail{Plan: w.plan, DeadlineNS: int64(2 * time.Hour)})
	err = errors.Join(err, j.Append(Applied, "a", nil), j.Close())
	if err != nil {
		t.Fatal(err)
	}
	w.set(keyOne, newOne) // as a file of sysctl.d may
	if err := Recover(w.dir); err != nil {
		t.Fatal(err)
	}
	if e := w.entry("a"); e.State != Lost {
		t.Errorf("state %s", e.State)
	}
	if one := w.values()[0]; one != newOne {
		t.Errorf("%s was written: %s", keyOne, one)
	}
}

// A namespace that vanishes takes its values with it; whoever has its inode number
// next is left alone.
func TestANamespaceThatVanishes(t *testing.T) {
	w := newWorld(t)
	victim, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	w.plan = w.planFor(victim)
	again := w.planFor(victim)
	e := w.apply(2 * time.Second)
	victim.Close()
	w.await("the deadline", func() bool { return w.entry(e.ID).State == Undone })
	for _, o := range w.entry(e.ID).Outcomes {
		if o.Result != Gone {
			t.Errorf("outcome %+v", o)
		}
	}

	// The kernel goes round its inode numbers before it uses one again (6.18), which is
	// too long to wait for. So the plan says that the vanished one had the number, and
	// the path, that another has: only its cookie tells them apart.
	heir, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer heir.Close()
	for i := range again.Changes {
		s := &again.Changes[i].Scope
		s.Inode, s.Path = heir.Inode(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), heir.FD())
	}
	_, err = Apply(t.Context(), again, Options{StateDir: w.dir, Within: time.Minute, Live: true})
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "another one has its inode number") {
		t.Errorf("got %v", err)
	}
	if value, err := read(heir, keyOne); err != nil || value != oldOne {
		t.Errorf("the other one has %s, %v", value, err)
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
	for _, want := range []string{"--unit=linger-watch-" + e.ID, "--unit=linger-deadline-" + e.ID, "--timer-property=AccuracySec=100ms", "--on-active=", "watch --state-dir " + w.dir + " " + e.ID} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("systemd-run was not asked for %s:\n%s", want, asked)
		}
	}
	w.await("the deadline", func() bool { return w.entry(e.ID).State == Undone })

	systemdRun = "/bin/false"
	_, err = Apply(t.Context(), w.plan, Options{StateDir: w.dir, Within: time.Minute, Live: true})
	if err == nil || !strings.Contains(err.Error(), "start the watcher") || w.values() != oldValues {
		t.Errorf("without a watcher: values %v, %v", w.values(), err)
	}
}

func TestWorse(t *testing.T) {
	for _, test := range []struct {
		name          string
		before, since Tally
		want          bool
	}{
		{"nothing", Tally{}, Tally{}, false},
		{"no base line", Tally{}, Tally{100, 100}, false},
		{"too few", Tally{1000, 0}, Tally{1000, 19}, false},
		{"twenty out of nothing", Tally{1000, 0}, Tally{1000, 20}, true},
		{"twice as many", Tally{1000, 100}, Tally{1000, 200}, false},
		{"three times as many, of few", Tally{1000, 7}, Tally{1000, 21}, false},
		{"three times as many, of many", Tally{10_000, 100}, Tally{10_000, 300}, true},
		{"as many, of more connections", Tally{1000, 100}, Tally{10_000, 1000}, false},
		{"as many, of fewer connections", Tally{10_000, 100}, Tally{1000, 100}, true},
	} {
		if got := worse(test.before, test.since); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

// The tail agrees with sums that can be done by hand.
func TestBinomialTail(t *testing.T) {
	for _, test := range []struct {
		k, n uint64
		p    float64
		want float64
	}{
		{0, 10, 0.5, 1}, {10, 10, 0.5, 1.0 / 1024}, {9, 10, 0.5, 11.0 / 1024}, {1, 2, 0.25, 1 - 0.75*0.75}, {1, 1, 0, 0}, {1, 1, 1, 1},
	} {
		if got := binomialTail(test.k, test.n, test.p); got < test.want-1e-12 || got > test.want+1e-12 {
			t.Errorf("P(X ≥ %d of %d at %g) = %g, want %g", test.k, test.n, test.p, got, test.want)
		}
	}
}

func TestReportBeginsWithTheID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Minute)
	r := e.Report(w.dir)
	text, err := json.Marshal(r)
	if err != nil || !strings.HasPrefix(string(text), `{"id":"`+e.ID+`"`) {
		t.Errorf("%s, %v", text, err)
	}
	if r.State != StatePending || r.SecondsLeft == nil || !strings.Contains(r.Confirm, "confirm "+e.ID+" --state-dir "+w.dir) || !r.Values[0].InForce() {
		t.Errorf("%+v", r)
	}
	if id, err := Last(w.dir); err != nil || id != e.ID {
		t.Errorf("the last is %s, %v", id, err)
	}
}

// What is kept over a boot is in a file that has the last word; where another one has
// it nothing is confirmed. A rollback leaves the values and the file as before, and
// starts no second watcher while the first is there.
func TestConfirmAndKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.ofTheHost()
	conf := filepath.Join(root, "etc/sysctl.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("net.ipv4.tcp_tw_reuse = 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := w.apply(time.Minute)
	if _, _, err := ConfirmAndKeep(w.dir, root, e.ID); err == nil || !strings.Contains(err.Error(), "nothing is confirmed: ") || w.entry(e.ID).State != Applied {
		t.Errorf("state %s, %v", w.entry(e.ID).State, err)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	_, kept, err := ConfirmAndKeep(w.dir, root, e.ID)
	if err != nil || w.entry(e.ID).State != Confirmed {
		t.Fatalf("state %s, %v", w.entry(e.ID).State, err)
	}
	text, err := os.ReadFile(filepath.Join(root, kept.File))
	if err != nil || !strings.Contains(string(text), "net.ipv4.tcp_tw_reuse = 1") || !strings.Contains(string(text), e.ID) {
		t.Errorf("%s: %s, %v", kept.File, text, err)
	}
	if r := w.entry(e.ID).Report(w.dir); r.File != kept.File {
		t.Errorf("the history tells of %q", r.File)
	}
	e, err = Rollback(w.dir, e.ID, false)
	if err != nil || w.values() != oldValues || len(w.files(root)) != 0 {
		t.Errorf("values %v, files %v, %v", w.values(), w.files(root), err)
	}
	if len(w.processes()) > 1 {
		t.Errorf("watchers %v", w.processes())
	}
	if r := e.Report(w.dir); r.File != "" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], kept.File+" is taken away") {
		t.Errorf("the history tells of %q, %q", r.File, r.Notes)
	}
}

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
