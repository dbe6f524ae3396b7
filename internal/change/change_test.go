package change

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/kernel/netns"
	"linger/internal/plan"
)

func TestConfirmedStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Minute)
	if w.values() != newValues || e.State != deed.Pending {
		t.Fatalf("values %v, state %s", w.values(), e.State)
	}
	if _, err := Confirm(w.dir, e.ID); err != nil {
		t.Fatal(err)
	}
	w.await("the watcher's end", func() bool { return !isWatched(w.dir, e.ID) })
	if w.values() != newValues || w.entry(e.ID).State != deed.Confirmed {
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
	w.await("the deadline", func() bool { return w.entry(e.ID).State == deed.Undone })
	if w.values() != oldValues || w.entry(e.ID).Reason.Kind != deed.Deadline {
		t.Errorf("values %v, reason %v", w.values(), w.entry(e.ID).Reason)
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
	if e.Outcomes[0].Result != deed.Theirs || e.Outcomes[0].Now != "20000 50000" || e.Outcomes[1].Result != deed.Restored {
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
		"another value": {
			func(w *world, _ *Options) { w.set(keyTwo, "1100 2101") },
			`is "1100 2101", and was "32768 60999" when the plan was made: plan again`,
		},
		"not live":        {func(_ *world, o *Options) { o.Live = false }, "--live"},
		"no time":         {func(_ *world, o *Options) { o.Within = 999 * time.Millisecond }, "want a second at least"},
		"too much time":   {func(_ *world, o *Options) { o.Within = 1 << 62 }, "want a year at most"},
		"no change":       {func(w *world, _ *Options) { w.plan.Changes = nil }, "changes nothing"},
		"a key by hand":   {func(w *world, _ *Options) { w.plan.Changes[0].Key = "kernel.panic" }, "no key that linger changes"},
		"a value by hand": {func(w *world, _ *Options) { w.plan.Changes[0].New = "7" }, "want a number from 0 to 2"},
		"an old by hand":  {func(w *world, _ *Options) { w.plan.Changes[0].Old = "0" }, `is "2", and was "0"`},
		"no state directory": {func(w *world, o *Options) {
			o.StateDir = filepath.Join(w.dir, "file", "state")
			if err := os.WriteFile(filepath.Join(w.dir, "file"), nil, 0o600); err != nil {
				w.t.Fatal(err)
			}
		}, "state directory"},
		"a damaged journal": {func(w *world, _ *Options) {
			if err := os.WriteFile(journal.Path(w.dir), []byte("nonsense\n"), 0o600); err != nil {
				w.t.Fatal(err)
			}
		}, "the journal is damaged: line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := Options{StateDir: w.dir, Within: time.Minute, Guard: deed.GuardWarn, Live: true}
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
			ids[i], _, errs[i] = errand{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Minute}.run()
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
	_, _, err := errand{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Minute}.run(roEnv + "=1")
	if err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Fatalf("got %v", err)
	}
	w.settledAs(deed.Undone, "read-only")
}

// settledAs wants one change in the journal, the old values, and no watcher.
func (w *world) settledAs(state deed.State, reason string) {
	w.t.Helper()
	records, err := journal.Read(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	entries, err := entriesOf(records)
	if err != nil || len(entries) != 1 || entries[0].State != state || !strings.Contains(entries[0].Reason.String(), reason) {
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
		id, _, err := errand{What: "apply", Dir: dir, Plan: w.plan, Within: time.Minute}.run()
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
		path := journal.Path(w.dir)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		// One byte in its place: a file that is cut and written anew would be read in between.
		if _, err := f.WriteAt([]byte{'!'}, 20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := Confirm(w.dir, e.ID); !errors.Is(err, journal.ErrCorrupt) {
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
		path := journal.Path(w.dir)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()-3); err != nil {
			t.Fatal(err)
		}
		w.await("the old values", func() bool { return w.values() == oldValues })
		w.await("the journal", func() bool { return w.entry(e.ID).State == deed.Undone })
	})
}

// The wall clock is for people alone: whatever it says, the deadline is by the time
// since boot. The clock of this host is not set for a test: the journal is written as it
// would have been before a jump of a day, and real watchers go on from it.
func TestAClockThatJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"ahead": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			begin := func(id string, within time.Duration) {
				t.Helper()
				j, err := journal.Open(w.dir)
				if err != nil {
					t.Fatal(err)
				}
				_, now, err := journal.Clock()
				err = errors.Join(err, j.Append(kindBegun, id, begunDetail{
					Plan: w.plan, DeadlineNS: int64(now + within), Deadline: time.Now().Add(within - jump), Guard: deed.GuardOff,
				}), j.Append(kindComplete, id, nil), j.Close())
				if err != nil {
					t.Fatal(err)
				}
			}
			w.set(keyOne, newOne)
			w.set(keyTwo, newTwo)
			begin("soon", time.Second)
			begin("later", time.Hour)
			if err := Recover(w.dir); err != nil { // starts the watchers
				t.Fatal(err)
			}
			defer w.endWatcher("later")
			w.await("the deadline", func() bool { return w.entry("soon").State == deed.Undone })
			if w.values() != oldValues || w.entry("later").State != deed.Pending || !isWatched(w.dir, "later") {
				t.Errorf("values %v, the other is %s", w.values(), w.entry("later").State)
			}
		})
	}
}

// A key of the whole host is written for real, with the value that it has.
func TestAKeyOfTheWholeHost(t *testing.T) {
	w := newWorld(t)
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	const key = "net.ipv4.tcp_max_orphans"
	value, err := read(h, key)
	if err != nil {
		t.Skipf("not the host's own namespace: %v", err)
	}
	cookie, err := h.Cookie()
	if err != nil {
		t.Fatal(err)
	}
	w.plan.Changes = []plan.Change{{
		Scope: plan.Scope{HostWide: true, Cookie: cookie, Inode: h.Inode(), Label: labelled("host")}, Key: key, Old: value, New: value,
	}}
	e := w.apply(time.Minute)
	records, err := journal.Read(w.dir)
	isWritten := func(r journal.Record) bool { return r.Kind == kindWritten && strings.Contains(string(r.Detail), key) }
	if err != nil || !slices.ContainsFunc(records, isWritten) {
		t.Errorf("the journal has %d records, %v, and none that it was written", len(records), err)
	}
	// It is pending for all namespaces, whichever it is planned in.
	other := *w.plan
	other.Changes = slices.Clone(w.plan.Changes)
	other.Changes[0].Scope.Label = labelled("netns other")
	_, err = Apply(t.Context(), &other, Options{StateDir: w.dir, Within: time.Minute, Live: true})
	if err == nil || !strings.Contains(err.Error(), key+" in the whole host is pending") {
		t.Errorf("applied twice: %v", err)
	}
	if e, err = Rollback(w.dir, e.ID, false); err != nil || e.Outcomes[0].Result != deed.Unwritten {
		t.Errorf("%+v, %v", e, err)
	}
	if now, err := read(h, key); err != nil || now != value {
		t.Errorf("%s is %s, and was %s, %v", key, now, value, err)
	}
}

// After a boot the values are gone: nothing is written, and the journal says so.
func TestABootEndsAChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j, err := journal.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	err = j.Append(kindBegun, "a", begunDetail{Plan: w.plan, DeadlineNS: int64(2 * time.Hour)})
	// b was confirmed, c is to be kept as well, and nobody came to write its file.
	root := t.TempDir()
	file, planned := planDropIn(root, "c", reuseOn)
	for _, id := range []string{"b", "c"} {
		err = errors.Join(err, j.Append(kindBegun, id, begunDetail{Plan: w.plan, DeadlineNS: int64(2 * time.Hour)}))
	}
	err = errors.Join(err, planned, j.Append(kindComplete, "a", nil), j.Append(kindKeeping, "c", file),
		j.Append(kindConfirmed, "b", nil), j.Append(kindConfirmed, "c", nil), j.Close())
	if err != nil {
		t.Fatal(err)
	}
	w.boot()
	w.set(keyOne, newOne) // as a file of sysctl.d may
	if err := Recover(w.dir); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]deed.State{"a": deed.Lost, "b": deed.Lost, "c": deed.Confirmed} {
		if e := w.entry(id); e.State != want || !e.Settled() {
			t.Errorf("%s: state %s, want %s", id, e.State, want)
		}
	}
	if len(w.files(root)) != 1 {
		t.Errorf("what was to be kept is in %v", w.files(root))
	}
	if one := w.values()[0]; one != newOne {
		t.Errorf("%s was written: %s", keyOne, one)
	}
}

// boot has the journal be that of another boot of this host.
func (w *world) boot() {
	w.t.Helper()
	text, err := os.ReadFile(journal.Path(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	now, _, err := journal.Clock()
	if err != nil {
		w.t.Fatal(err)
	}
	var before []byte
	for line := range bytes.Lines(text) {
		_, record, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		record = bytes.Replace(record, []byte(`"boot":"`+now+`"`), []byte(`"boot":"another boot"`), 1)
		before = fmt.Appendf(before, "%08x %s\n", crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)), record)
	}
	if err := os.WriteFile(journal.Path(w.dir), before, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// tinyDisk mounts a tmpfs of that size, and takes it away with the test.
func tinyDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
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
	w.await("the deadline", func() bool { return w.entry(e.ID).State == deed.Undone })
	for _, o := range w.entry(e.ID).Outcomes {
		if o.Result != deed.Gone {
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
	if !errors.Is(err, errGone) || !strings.Contains(err.Error(), "another one has its inode number") {
		t.Errorf("got %v", err)
	}
	if value, err := read(heir, keyOne); err != nil || value != oldOne {
		t.Errorf("the other one has %s, %v", value, err)
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
	confirm := "confirm " + e.ID + " --state-dir " + w.dir
	if r.State != deed.Pending || r.SecondsLeft == nil || !strings.Contains(r.Confirm, confirm) || !r.Values[0].InForce() {
		t.Errorf("%+v", r)
	}
	if id, err := Last(w.dir); err != nil || id != e.ID {
		t.Errorf("the last is %s, %v", id, err)
	}
}
