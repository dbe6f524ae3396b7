package change

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// within is long enough for a command to do its work, and short enough to wait for.
const within = 2 * time.Second

// TestKilledAtEachStep ends each process that changes something by SIGKILL, at each of
// its steps in turn. What another process of linger finds, once the deadline is over,
// are the old values, or the confirmed ones, and a journal that tells which and why.
func TestKilledAtEachStep(t *testing.T) {
	for _, who := range []string{"apply", "confirm", "rollback", "watch"} {
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
			// Journal records before and after, values before and after: fewer would mean
			// that the walk saw none of them.
			if least := map[string]int{"apply": 14, "confirm": 2, "rollback": 8, "watch": 10}[who]; steps < least && !t.Failed() {
				t.Errorf("%d steps walked, want %d at least", steps, least)
			}
		})
	}
}

// killAt tells whether the process came as far as that step.
func killAt(t *testing.T, who string, n int) (came bool) {
	w := newWorld(t)
	kill := fmt.Sprintf("%s=%s:%d", killEnv, who, n)
	d := deed{What: "apply", Dir: w.dir, Plan: w.plan, Within: within}
	switch who {
	case "apply":
		if _, _, err := d.run(kill); err != nil {
			t.Fatal(err)
		}
	case "watch":
		// The command fails where its watcher dies at once, and takes back what it did.
		_, _, _ = d.run(kill)
	case "confirm":
		d.Within = 3 * within
		id, _, err := d.run()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := (deed{What: who, Dir: w.dir, ID: id}).run(kill); err != nil {
			t.Fatal(err)
		}
	case "rollback":
		d.Within = time.Minute
		id, _, err := d.run()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Confirm(w.dir, id); err != nil {
			t.Fatal(err)
		}
		// A confirmed change has no watcher any more.
		w.await("the watcher's end", func() bool { return len(w.watchers()) == 0 })
		if _, _, err := (deed{What: who, Dir: w.dir, ID: id}).run(kill); err != nil {
			t.Fatal(err)
		}
	}

	var entries []*Entry
	w.await("the change to be settled", func() bool {
		if len(w.watchers()) > 0 {
			return false
		}
		// The next start of linger.
		if err := Recover(w.dir); err != nil {
			t.Fatal(err)
		}
		records, err := ReadJournal(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		if entries, err = Entries(records); err != nil {
			t.Fatal(err)
		}
		return len(w.watchers()) == 0 && (len(entries) == 0 || entries[0].Settled())
	})
	want := oldValues
	if len(entries) > 0 {
		e := entries[0]
		if e.State == Confirmed {
			want = newValues
		}
		if e.State == Undone && (e.Reason == "" || len(e.Outcomes) != 2) {
			t.Errorf("the journal does not explain: %+v", e)
		}
	}
	if w.values() != want {
		t.Errorf("values %v, want %v; the journal says %+v", w.values(), want, entries)
	}
	_, err := os.Stat(filepath.Join(w.dir, killedName))
	return err == nil
}
