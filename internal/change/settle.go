package change

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"linger/internal/plan"
)

// Confirm keeps a change until the next boot. It is refused once its deadline has
// come: the values are about to be, or were, taken back.
func Confirm(dir, id string) (*Entry, error) {
	j, err := openExisting(dir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := recoverAll(j, dir); err != nil {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	switch {
	case e.State == Confirmed:
		return e, nil
	case e.State != Applied:
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to confirm", id, e.State, e.why())
	}
	if late, err := e.isLate(); err != nil || late {
		return nil, errors.Join(err, fmt.Errorf("change %s is past its deadline and is being taken back; apply it again", id))
	}
	if err := record(j, Confirmed, id, nil); err != nil {
		return nil, err
	}
	return entryOf(j.Records(), id)
}

// Keeps is how a change outlives a boot.
type Keeps struct {
	// File is the drop-in that linger wrote, empty where it wrote none.
	File string
	// Manifest is the patch of a pod's or container's manifest, which no file of this
	// host can replace.
	Manifest string
	Notes    []string
}

// ConfirmAndKeep is Confirm, and keeps the values over a boot: those of the host in a
// file of sysctl.d below root that really has the last word, or else nothing is
// confirmed. Values of other namespaces are not this host's files to keep: it says
// whose they are.
func ConfirmAndKeep(dir, root, id string) (*Entry, *Keeps, error) {
	records, err := ReadJournal(dir)
	if err != nil {
		return nil, nil, err
	}
	e, err := entryOf(records, id)
	if err != nil {
		return nil, nil, err
	}
	k := &Keeps{Notes: []string{}}
	var settings []Setting
	var pods []plan.Change
	for _, c := range e.Plan.Changes {
		switch kind, _, _ := strings.Cut(c.Scope.Label, " "); {
		case c.Scope.HostWide || kind == "host":
			settings = append(settings, Setting{Key: c.Key, Value: c.New})
		case kind == "pod" || kind == "container":
			pods = append(pods, c)
		case c.Persist != nil:
			k.Notes = append(k.Notes, fmt.Sprintf("%s in %s is kept by %s: %s", c.Key, c.Scope, c.Persist.File, c.Persist.Line))
		}
	}
	var file DropIn
	if len(settings) > 0 {
		if file, err = PlanDropIn(root, id, settings); err != nil {
			return nil, nil, fmt.Errorf("nothing is confirmed: %w", err)
		}
		k.File, k.Notes = file.Path, append(k.Notes, file.Warnings...)
	}
	if len(pods) > 0 {
		if k.Manifest, err = plan.Emit(plan.EmitK8s, pods); err != nil {
			return nil, nil, fmt.Errorf("nothing is confirmed: %w", err)
		}
	}
	if e, err = Confirm(dir, id); err != nil {
		return nil, nil, err
	}
	if len(settings) > 0 {
		if err := Keep(dir, &file); err != nil {
			return nil, nil, fmt.Errorf("change %s is confirmed until the next boot, and not kept beyond it: %w", id, err)
		}
	}
	return e, k, nil
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
	if err := recoverAll(j, dir); err != nil {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if e.State == Undone || e.State == Lost {
		return nil, fmt.Errorf("change %s is %s: %s; there is nothing to take back", id, e.State, e.why())
	}
	if e.State == Confirmed { // no watcher lives that would go on if this process dies
		if err := guardUndo(j, e, dir); err != nil {
			return nil, err
		}
	}
	outcomes, err := undo(j, e, "asked for", force)
	if failed := failures(outcomes); failed != "" {
		return nil, errors.New(failed)
	}
	if err != nil {
		return nil, err
	}
	return entryOf(j.Records(), id)
}

// guardUndo journals that a change is being undone, and starts who would go on.
func guardUndo(j *Journal, e *Entry, dir string) error {
	program, err := installWatcher(dir)
	if err != nil {
		return err
	}
	if err := j.Reserve(); err != nil {
		return err
	}
	if err := record(j, Undoing, e.ID, reasonDetail{"asked for"}); err != nil {
		return err
	}
	e.State = Undoing
	_, now, err := clock()
	if err != nil {
		return err
	}
	return startWatcher(program, dir, e.ID, now)
}

// undo takes a change back, the last value first. The values come before all else:
// where the journal cannot be written they are restored all the same, and the error
// says what is missing.
func undo(j *Journal, e *Entry, reason string, force bool) ([]Outcome, error) {
	var unwritten error
	if e.State != Undoing {
		unwritten = record(j, Undoing, e.ID, reasonDetail{reason})
	}
	outcomes := restore(e.Plan, force)
	if failures(outcomes) != "" {
		if !e.stuck {
			unwritten = errors.Join(unwritten, record(j, Stuck, e.ID, outcomesDetail{outcomes}))
		}
		return outcomes, unwritten
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
	var problems []error
	for _, e := range entries {
		if !e.Settled() {
			problems = append(problems, e.recover(j, dir))
		}
	}
	return errors.Join(problems...)
}

func (e *Entry) recover(j *Journal, dir string) error {
	boot, now, err := clock()
	if err != nil {
		return err
	}
	if boot != e.boot {
		return record(j, Lost, e.ID, nil)
	}
	if isWatched(dir, e.ID) {
		return nil // it goes on when this process lets the journal go
	}
	switch late := int64(now) >= e.deadlineNS; {
	case e.State == Applied && !late:
		program, err := installWatcher(dir)
		if err != nil {
			return err
		}
		return startWatcher(program, dir, e.ID, time.Duration(e.deadlineNS))
	case e.State == Applied:
		return e.settle(j, "it was not confirmed in time, and its watcher was killed")
	default:
		return e.settle(j, "the process that changed it was killed")
	}
}

// settle undoes, and makes an error of what is left.
func (e *Entry) settle(j *Journal, reason string) error {
	outcomes, err := undo(j, e, reason, false)
	if failed := failures(outcomes); failed != "" {
		err = errors.Join(err, fmt.Errorf("change %s: %s", e.ID, failed))
	}
	return err
}
