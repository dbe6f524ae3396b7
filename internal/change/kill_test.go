package change

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
)

// within is long enough for a command to do its work, and short enough to wait for.
const within = 2 * time.Second

// walks are what is killed, and at how many steps at least: fewer would mean that the
// walk saw none of the journal's records, of the values or of the file.
var walks = map[string]int{
	"apply":    14,
	"confirm":  2,
	"keep":     8,
	"rollback": 8,  // of a pending change
	"undo":     12, // of one that was confirmed and kept in a file
	"watch":    10,
}

// TestKilledAtEachStep ends each process that changes something by SIGKILL, at each of
// its steps in turn. What another process of linger finds, once the deadline is over,
// are the old values, or the confirmed ones, with the file that keeps them or without
// it, and a journal that tells which and why.
func TestKilledAtEachStep(t *testing.T) {
	for who, least := range walks {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for n := 1; ; n++ {
				if !t.Run(fmt.Sprintf("step %d", n), func(t *testing.T) {
					if killAt(t, who, n) {
						steps++
					}
				}) || steps < n {
					break
				}
			}
			if steps < least && !t.Failed() {
				t.Errorf("%d steps walked, want %d at least", steps, least)
			}
		})
	}
}

// killAt tells whether the process came as far as that step.
func killAt(t *testing.T, who string, n int) (came bool) {
	w := newWorld(t)
	root := w.ofTheHost()
	what := who
	if who == "undo" {
		what = "rollback"
	}
	kill := fmt.Sprintf("%s=%s:%d", killEnv, what, n)
	d := errand{What: "apply", Dir: w.dir, Plan: w.plan, Within: within, Guard: deed.GuardOff}
	must := func(id string, killed bool, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	switch who {
	case "apply":
		must(d.run(kill))
	case "watch":
		// The command fails where its watcher dies at once, and takes back what it did.
		_, _, _ = d.run(kill)
	case "confirm", "keep":
		d.Within = 3 * within
		must(errand{What: what, Dir: w.dir, Root: root, ID: must(d.run())}.run(kill))
	case "rollback":
		d.Within = 3 * within
		must(errand{What: what, Dir: w.dir, ID: must(d.run())}.run(kill))
	case "undo":
		d.Within = time.Minute
		id := must(d.run())
		if _, _, err := ConfirmAndKeep(w.dir, root, id); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 { // with the watcher that has not left yet, and with a new one
			w.await("the watcher's end", func() bool { return len(w.watchers()) == 0 })
		}
		must(errand{What: what, Dir: w.dir, ID: id}.run(kill))
	}

	e := w.awaitSettled()
	want, files := oldValues, 0
	if e != nil && e.State == deed.Confirmed {
		want = newValues
		if e.filed {
			files = 1
		}
	}
	if e != nil && e.State == deed.Undone && (e.Reason == (deed.Reason{}) || len(e.Outcomes) != 2) {
		t.Errorf("the journal does not explain: %+v", e)
	}
	if w.values() != want || len(w.files(root)) != files {
		t.Errorf("values %v, want %v; files %v, want %d; the journal says %+v", w.values(), want, w.files(root), files, e)
	}
	if e != nil && e.State == deed.Confirmed && who != "confirm" && !e.filed {
		t.Errorf("confirmed, to be kept, and not kept: %+v", e)
	}
	_, err := os.Stat(filepath.Join(w.dir, killedName))
	return err == nil
}

// awaitSettled is the one change of a world, nil where none began, when nobody watches
// it any more and the next start of linger has left it settled.
func (w *world) awaitSettled() (e *Entry) {
	w.t.Helper()
	w.await("the change to be settled", func() bool {
		if len(w.watchers()) > 0 {
			return false
		}
		if err := Recover(w.dir); err != nil {
			w.t.Fatal(err)
		}
		records, err := journal.Read(w.dir)
		if err != nil {
			w.t.Fatal(err)
		}
		entries, err := entriesOf(records)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(entries) > 0 {
			e = entries[0]
		}
		return len(w.watchers()) == 0 && (e == nil || e.Settled())
	})
	return e
}
