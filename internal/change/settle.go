package change

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/plan"
)

// Confirm keeps a change until the next boot. It is refused once its deadline has
// come: the values are about to be, or were, taken back.
func Confirm(dir, id string) (*Entry, error) {
	return confirmWith(dir, id, func(*Entry) (*dropIn, error) { return nil, nil })
}

// confirmWith is done with one record: what comes before it, a file that is to be written,
// counts only with it, and what comes after it is completed by whoever looks next.
func confirmWith(dir, id string, keep func(*Entry) (*dropIn, error)) (*Entry, error) {
	j, err := openExisting(dir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := recoverAll(j, dir); errors.Is(err, journal.ErrCorrupt) {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if e.State != deed.Confirmed && e.State != deed.Pending {
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to confirm", id, e.State, e.why())
	}
	if late, err := e.isLate(); e.State == deed.Pending && (err != nil || late) {
		return nil, errors.Join(err, fmt.Errorf("change %s is past its deadline and is being taken back; apply it again", id))
	}
	file, err := keep(e)
	if err != nil {
		return nil, err
	}
	switch {
	case file != nil && !e.filed:
		err = record(j, kindKeeping, id, file)
	case file == nil && e.isKeeping(): // planned by one that was killed, and not asked for now
		err = record(j, kindForgotten, id, sentenceDetail{deed.Note{Kind: deed.FileUnwritten, File: e.file.Path}.String()})
	}
	if err == nil && e.State == deed.Pending {
		err = record(j, kindConfirmed, id, nil)
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
	if e.Reason != (deed.Reason{}) {
		return e.Reason.String()
	}
	if e.State == deed.Lost {
		return "the host was booted since"
	}
	return "began " + e.Began.Format(time.RFC3339)
}

func (e *Entry) isLate() (bool, error) {
	boot, now, err := journal.Clock()
	return boot != e.boot || int64(now) >= e.deadlineNS, err
}

// Last is the latest change that can be taken back.
func Last(dir string) (string, error) {
	records, err := journal.Read(dir)
	if err != nil {
		return "", err
	}
	entries, err := entriesOf(records)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		if e.State.InForce() {
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
	if err := recoverAll(j, dir); errors.Is(err, journal.ErrCorrupt) {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if !e.State.InForce() {
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to take back", id, e.State, e.why())
	}
	if e.State == deed.Confirmed { // no watcher lives that would go on if this process dies
		if err := guardUndo(j, e, dir, force); err != nil {
			return nil, err
		}
	}
	if err := e.settle(j, deed.Reason{Kind: deed.ByHand}, force); err != nil {
		return nil, err
	}
	return entryOf(j.Records(), id)
}

// guardUndo journals that a confirmed change is being undone, and starts who would go
// on, unless its watcher has not left yet: that one waits for the journal.
func guardUndo(j *journal.Journal, e *Entry, dir string, force bool) error {
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
	if err := record(j, kindUndoing, e.ID, undoingDetail{deed.Reason{Kind: deed.ByHand}, force}); err != nil {
		return err
	}
	e.State, e.force = deed.Undoing, force
	if watched {
		return nil
	}
	_, now, err := journal.Clock()
	if err != nil {
		return err
	}
	return startWatcher(program, dir, e.ID, now)
}

// undo takes a change back, the last value first, then its file. The values come before
// all else: where the journal cannot be written they are restored all the same, and the
// error says what is missing.
func undo(j *journal.Journal, e *Entry, reason deed.Reason, force bool) ([]deed.Outcome, error) {
	var unwritten error
	if e.State != deed.Undoing || force && !e.force {
		e.force = force
		unwritten = record(j, kindUndoing, e.ID, undoingDetail{reason, force})
	}
	outcomes := restore(e.Plan, e.force)
	var left error
	if failed(outcomes) == nil {
		left = e.forget(j)
	}
	if failed(outcomes) != nil || left != nil {
		if !e.stuck {
			unwritten = errors.Join(unwritten, record(j, kindStuck, e.ID, outcomesDetail{outcomes}))
		}
		return outcomes, errors.Join(left, unwritten)
	}
	if unwritten == nil {
		unwritten = record(j, kindUndone, e.ID, outcomesDetail{outcomes})
	}
	return outcomes, unwritten
}

// restore writes the old values of a plan back.
func restore(p *plan.Plan, force bool) []deed.Outcome {
	outcomes := []deed.Outcome{}
	for i := range slices.Backward(p.Changes) {
		c := &p.Changes[i]
		out := deed.Outcome{Key: c.Key, Scope: c.Scope}
		out.Result, out.Now, out.Cause = restoreOne(c, force)
		outcomes = append(outcomes, out)
	}
	return outcomes
}

func restoreOne(c *plan.Change, force bool) (result deed.Result, now, cause string) {
	h, _, err := open(c.Scope)
	if errors.Is(err, errGone) {
		return deed.Gone, "", ""
	}
	if err != nil {
		return deed.Failed, "", err.Error()
	}
	defer h.Close()
	now, err = read(h, c.Key)
	switch {
	case err != nil:
		return deed.Failed, "", err.Error()
	case plan.Same(now, c.Old):
		return deed.Unwritten, now, ""
	case !plan.Same(now, c.New) && !force:
		return deed.Theirs, now, ""
	}
	if err := write(h, c.Key, c.Old); err != nil {
		return deed.Failed, now, err.Error()
	}
	return deed.Restored, c.Old, ""
}

// failed is an error that names the values that could not be written back, nil for none.
func failed(outcomes []deed.Outcome) error {
	var all []string
	for _, o := range outcomes {
		if o.Result == deed.Failed {
			all = append(all, fmt.Sprintf("%s in %s could not be written back: %s", o.Key, o.Scope, o.Cause))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}

// Recover settles what a process that was killed has left: what is past its deadline,
// or half done, is taken back; what is not gets a watcher again; what a boot has ended
// is said to be.
func Recover(dir string) error {
	j, err := openExisting(dir)
	if errors.Is(err, errUnknownID) {
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
	records, err := journal.Read(dir)
	if err != nil {
		return nil, nil // it is another user's, or commands that change will say that it is damaged
	}
	left, err := unattended(records, dir)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	j, err := journal.TryOpen(dir)
	if errors.Is(err, journal.ErrBusy) || errors.Is(err, os.ErrPermission) {
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
func unattended(records []journal.Record, dir string) (ids []string, err error) {
	entries, err := entriesOf(records)
	if err != nil {
		return nil, nil // as of one that cannot be read
	}
	boot, _, err := journal.Clock()
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
func openExisting(dir string) (*journal.Journal, error) {
	if _, err := os.Stat(journal.Path(dir)); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no journal; --state-dir names another place", errUnknownID, dir)
	}
	return journal.Open(dir)
}

func recoverAll(j *journal.Journal, dir string) error {
	entries, err := entriesOf(j.Records())
	if err != nil {
		return err
	}
	boot, now, err := journal.Clock()
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range entries {
		switch {
		case e.isLost(boot):
			problems = append(problems, record(j, kindLost, e.ID, nil))
		case !e.Settled():
			problems = append(problems, e.recover(j, dir, now))
		}
	}
	return errors.Join(problems...)
}

// isLost tells whether a boot has ended the change: its values are gone, and no file sets
// them anew.
func (e *Entry) isLost(boot string) bool {
	filed := e.file != nil && (e.State == deed.Confirmed || e.State == deed.Undoing)
	return e.boot != boot && e.State.InForce() && !filed
}

// recover goes on with what a process that was killed has left. What somebody watches
// goes on by itself, when this process lets the journal go.
func (e *Entry) recover(j *journal.Journal, dir string, now time.Duration) error {
	switch late := int64(now) >= e.deadlineNS; {
	case isWatched(dir, e.ID):
		return nil
	case e.State == deed.Pending && !late:
		program, err := installWatcher(dir)
		if err != nil {
			return err
		}
		return startWatcher(program, dir, e.ID, time.Duration(e.deadlineNS))
	case e.State == deed.Pending:
		return e.settle(j, deed.Reason{Kind: deed.Unwatched}, e.force)
	default:
		return e.settle(j, deed.Reason{Kind: deed.Killed}, e.force)
	}
}

// settle brings to its end what was begun: a confirmed change gets its file, any other
// is taken back. What is left makes an error.
func (e *Entry) settle(j *journal.Journal, reason deed.Reason, force bool) error {
	if e.State == deed.Confirmed {
		return e.keep(j)
	}
	outcomes, err := undo(j, e, reason, force)
	if left := failed(outcomes); left != nil {
		err = errors.Join(err, fmt.Errorf("change %s: %w", e.ID, left))
	}
	return err
}
