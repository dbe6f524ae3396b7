package change

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/plan"
)

// Confirm keeps a change until the next boot. It is refused once its deadline has
// come: the values are about to be, or were, taken back.
func Confirm(dir, id string) (*Entry, error) {
	return confirm(dir, id, func(*Entry) (*DropIn, error) { return nil, nil })
}

// confirm is done with one record: what comes before it, a file that is to be written,
// counts only with it, and what comes after it is completed by whoever looks next.
func confirm(dir, id string, keep func(*Entry) (*DropIn, error)) (*Entry, error) {
	j, err := openExisting(dir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := recoverAll(j, dir); errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if e.State != Confirmed && e.State != Applied {
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to confirm", id, states[e.State], e.why())
	}
	if late, err := e.isLate(); e.State == Applied && (err != nil || late) {
		return nil, errors.Join(err, fmt.Errorf("change %s is past its deadline and is being taken back; apply it again", id))
	}
	file, err := keep(e)
	if err != nil {
		return nil, err
	}
	switch {
	case file != nil && !e.filed:
		err = record(j, Keeping, id, file)
	case file == nil && e.isKeeping(): // planned by one that was killed, and not asked for now
		err = record(j, Forgotten, id, reasonDetail{Reason: e.file.Path + " was not written yet"})
	}
	if err == nil && e.State == Applied {
		err = record(j, Confirmed, id, nil)
	}
	if err != nil {
		return nil, err
	}
	if e, err = entryOf(j.Records(), id); err == nil && e.isKeeping() {
		err = e.keep(j)
	}
	if err != nil {
		return nil, err
	}
	return entryOf(j.Records(), id)
}

// why is what to tell of a change that has ended.
func (e *Entry) why() string {
	if e.Reason != "" {
		return e.Reason
	}
	if e.State == Lost {
		return "the host was booted since"
	}
	return "began " + e.Began.Format(time.RFC3339)
}

func (e *Entry) isLate() (bool, error) {
	boot, now, err := clock()
	return boot != e.boot || int64(now) >= e.deadlineNS, err
}

// Last is the latest change that can be taken back.
func Last(dir string) (string, error) {
	records, err := ReadJournal(dir)
	if err != nil {
		return "", err
	}
	entries, err := Entries(records)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		if e.State != Undone && e.State != Lost {
			return e.ID, nil
		}
	}
	return "", errors.New("no change is in force: there is nothing to take back")
}

// Rollback writes the old values of a change back, where they are still linger's: a
// value that others changed since is kept, unless forced. The values are read back.
func Rollback(dir, id string, force bool) (*Entry, error) {
	j, err := openExisting(dir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := recoverAll(j, dir); errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if e.State == Undone || e.State == Lost {
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to take back", id, states[e.State], e.why())
	}
	if e.State == Confirmed { // no watcher lives that would go on if this process dies
		if err := guardUndo(j, e, dir, force); err != nil {
			return nil, err
		}
	}
	if err := e.settle(j, askedFor, force); err != nil {
		return nil, err
	}
	return entryOf(j.Records(), id)
}

// Why a change is taken back.
const (
	askedFor  = "asked for"
	notInTime = "it was not confirmed in time"
	wasKilled = "the process that changed it was killed"
)

// guardUndo journals that a confirmed change is being undone, and starts who would go
// on, unless its watcher has not left yet: that one waits for the journal.
func guardUndo(j *Journal, e *Entry, dir string, force bool) error {
	watched := isWatched(dir, e.ID)
	program := ""
	if !watched {
		var err error
		if program, err = installWatcher(dir); err != nil {
			return err
		}
	}
	if err := j.Reserve(); err != nil {
		return err
	}
	if err := record(j, Undoing, e.ID, reasonDetail{askedFor, force}); err != nil {
		return err
	}
	e.State, e.force = Undoing, force
	if watched {
		return nil
	}
	_, now, err := clock()
	if err != nil {
		return err
	}
	return startWatcher(program, dir, e.ID, now)
}

// undo takes a change back, the last value first, then its file. The values come before
// all else: where the journal cannot be written they are restored all the same, and the
// error says what is missing.
func undo(j *Journal, e *Entry, reason string, force bool) ([]Outcome, error) {
	var unwritten error
	if e.State != Undoing || force && !e.force {
		e.force = force
		unwritten = record(j, Undoing, e.ID, reasonDetail{reason, force})
	}
	outcomes := restore(e.Plan, e.force)
	var left error
	if failures(outcomes) == "" {
		left = e.forget(j)
	}
	if failures(outcomes) != "" || left != nil {
		if !e.stuck {
			unwritten = errors.Join(unwritten, record(j, Stuck, e.ID, outcomesDetail{outcomes}))
		}
		return outcomes, errors.Join(left, unwritten)
	}
	if unwritten == nil {
		unwritten = record(j, Undone, e.ID, outcomesDetail{outcomes})
	}
	return outcomes, unwritten
}

// restore writes the old values of a plan back.
func restore(p *plan.Plan, force bool) []Outcome {
	outcomes := []Outcome{}
	for i := range slices.Backward(p.Changes) {
		c := &p.Changes[i]
		out := Outcome{Key: c.Key, Scope: c.Scope}
		out.Result, out.Now, out.Cause = restoreOne(c, force)
		outcomes = append(outcomes, out)
	}
	return outcomes
}

func restoreOne(c *plan.Change, force bool) (result Result, now, cause string) {
	h, _, err := open(c.Scope)
	if errors.Is(err, ErrGone) {
		return Gone, "", ""
	}
	if err != nil {
		return Failed, "", err.Error()
	}
	defer h.Close()
	now, err = read(h, c.Key)
	switch {
	case err != nil:
		return Failed, "", err.Error()
	case plan.Same(now, c.Old):
		return Unwritten, now, ""
	case !plan.Same(now, c.New) && !force:
		return Kept, now, ""
	}
	if err := write(h, c.Key, c.Old); err != nil {
		return Failed, now, err.Error()
	}
	return Restored, c.Old, ""
}

// failures names the values that could not be written back, empty for none.
func failures(outcomes []Outcome) string {
	var failed []string
	for _, o := range outcomes {
		if o.Result == Failed {
			failed = append(failed, fmt.Sprintf("%s in %s could not be written back: %s", o.Key, o.Scope, o.Cause))
		}
	}
	return strings.Join(failed, "; ")
}

// Recover settles what a process that was killed has left: what is past its deadline,
// or half done, is taken back; what is not gets a watcher again; what a boot has ended
// is said to be.
func Recover(dir string) error {
	j, err := openExisting(dir)
	if errors.Is(err, ErrUnknownID) {
		return nil
	}
	if err != nil {
		return err
	}
	defer j.Close()
	return recoverAll(j, dir)
}

// Resume is Recover at the start of a command that is about something else: it waits for
// nobody, and needs no journal that can be read. It returns the changes that it settled.
func Resume(dir string) ([]*Entry, error) {
	records, err := ReadJournal(dir)
	if err != nil {
		return nil, nil // it is another user's, or commands that change will say that it is damaged
	}
	left, err := unattended(records, dir)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	j, err := openJournal(dir, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrPermission) {
		return nil, nil // somebody is at work, or another user's
	}
	if err != nil {
		return nil, err
	}
	defer j.Close()
	problems := recoverAll(j, dir)
	var settled []*Entry
	for _, id := range left {
		if e, err := entryOf(j.Records(), id); err == nil && e.Settled() {
			settled = append(settled, e)
		}
	}
	return settled, problems
}

// unattended are the changes that somebody has to go on with, and nobody does.
func unattended(records []Record, dir string) (ids []string, err error) {
	entries, err := Entries(records)
	if err != nil {
		return nil, nil // as of one that cannot be read
	}
	boot, _, err := clock()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.isLost(boot) || !e.Settled() && !isWatched(dir, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	return ids, nil
}

// openExisting opens a journal that is there: a question must make no file.
func openExisting(dir string) (*Journal, error) {
	if _, err := os.Stat(filepath.Join(dir, journalName)); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no journal; --state-dir names another place", ErrUnknownID, dir)
	}
	return OpenJournal(dir)
}

func recoverAll(j *Journal, dir string) error {
	entries, err := Entries(j.Records())
	if err != nil {
		return err
	}
	boot, now, err := clock()
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range entries {
		switch {
		case e.isLost(boot):
			problems = append(problems, record(j, Lost, e.ID, nil))
		case !e.Settled():
			problems = append(problems, e.recover(j, dir, now))
		}
	}
	return errors.Join(problems...)
}

// isLost tells whether a boot has ended the change: its values are gone, and no file sets
// them anew.
func (e *Entry) isLost(boot string) bool {
	filed := e.file != nil && (e.State == Confirmed || e.State == Undoing)
	return e.boot != boot && e.State != Undone && e.State != Lost && !filed
}

// recover goes on with what a process that was killed has left. What somebody watches
// goes on by itself, when this process lets the journal go.
func (e *Entry) recover(j *Journal, dir string, now time.Duration) error {
	switch late := int64(now) >= e.deadlineNS; {
	case isWatched(dir, e.ID):
		return nil
	case e.State == Applied && !late:
		program, err := installWatcher(dir)
		if err != nil {
			return err
		}
		return startWatcher(program, dir, e.ID, time.Duration(e.deadlineNS))
	case e.State == Applied:
		return e.settle(j, notInTime+", and its watcher was killed", e.force)
	default:
		return e.settle(j, wasKilled, e.force)
	}
}

// settle brings to its end what was begun: a confirmed change gets its file, any other
// is taken back. What is left makes an error.
func (e *Entry) settle(j *Journal, reason string, force bool) error {
	if e.State == Confirmed {
		return e.keep(j)
	}
	outcomes, err := undo(j, e, reason, force)
	if failed := failures(outcomes); failed != "" {
		err = errors.Join(err, fmt.Errorf("change %s: %s", e.ID, failed))
	}
	return err
}
