package change

import (
	"errors"
	"os/exec"
	"path/filepath"
	"time"

	"linger/internal/deed"
	"linger/internal/diagnose"
	"linger/internal/journal"
	"linger/internal/plan"
)

// Report tells an entry with the present values.
func (e *Entry) Report(dir string) deed.Report {
	r := deed.Report{
		ID: e.ID, Schema: deed.Schema, State: e.State, Deadline: e.Deadline, Began: e.Began, User: e.User,
		Problems: e.Plan.Problems, Values: []deed.Value{}, Guard: e.Guard, Warning: e.Warning, Reason: e.Reason,
		Outcomes: append([]deed.Outcome{}, e.Outcomes...), Notes: []deed.Note{},
	}
	if e.file != nil && e.filed {
		r.File = e.file.Path
	}
	if e.fate != (deed.Note{}) {
		r.Notes = append(r.Notes, e.fate)
	}
	if r.Problems == nil {
		r.Problems = []diagnose.Slug{}
	}
	if !e.Ended.IsZero() {
		r.Ended = &e.Ended
	}
	boot, now, err := journal.Clock()
	if err == nil && e.isLost(boot) {
		r.State = deed.Lost
	} else if !e.Settled() {
		r.Rollback = command(dir, "rollback "+e.ID)
		if e.State == deed.Pending {
			left := max(0, (time.Duration(e.deadlineNS) - now).Seconds())
			watched := e.watched(sighted(dir, e.ID))
			r.SecondsLeft, r.Watched = &left, &watched
			r.Confirm = command(dir, "confirm "+e.ID)
		}
	}
	for i := range e.Plan.Changes {
		r.Values = append(r.Values, valueNow(&e.Plan.Changes[i]))
	}
	return r
}

func valueNow(c *plan.Change) deed.Value {
	v := deed.Value{Scope: c.Scope, Key: c.Key, Old: c.Old, New: c.New, Forced: c.Forced, Effects: []deed.EffectSoFar{}}
	for _, effect := range c.Effects {
		v.Effects = append(v.Effects, deed.EffectSoFar{Effect: effect})
	}
	h, _, err := open(c.Scope)
	if err != nil {
		v.Gone = errors.Is(err, errGone)
		return v
	}
	defer h.Close()
	if now, err := read(h, c.Key); err == nil {
		v.Now = &now
	}
	return v
}

// command is a command line of linger that works in any shell of this host: by its
// name where that is found, else by the copy in the state directory.
func command(dir, rest string) string {
	if whole, err := filepath.Abs(dir); err == nil {
		dir = whole // it is typed elsewhere
	}
	program := "linger"
	if _, err := exec.LookPath(program); err != nil {
		if copies, _ := filepath.Glob(filepath.Join(dir, "program-*", "linger")); len(copies) > 0 {
			program = copies[len(copies)-1]
		}
	}
	if dir != journal.DefaultDir {
		rest += " --state-dir " + diagnose.Quote(dir)
	}
	return program + " " + rest
}

// Reports tells all entries that want keeps, the latest last. It reads only.
func Reports(dir string, want func(*Entry) bool) ([]deed.Report, error) {
	records, err := journal.Read(dir)
	if err != nil {
		return nil, err
	}
	entries, err := entriesOf(records)
	if err != nil {
		return nil, err
	}
	reports := []deed.Report{}
	for _, e := range entries {
		if want == nil || want(e) {
			reports = append(reports, e.Report(dir))
		}
	}
	return reports, nil
}
