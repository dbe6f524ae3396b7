package change

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/plan"
)

// Schema names the form of one change's JSON, ListSchema that of several
// (docs/change.schema.json).
const (
	Schema     = "linger.change/1"
	ListSchema = "linger.changes/1"
)

// Report is a change as it is told, with what the kernel says now.
type Report struct {
	// ID comes first, for whoever reads no further.
	ID     string `json:"id"`
	Schema string `json:"schema"`
	State  State  `json:"state"`
	// Deadline is when it is taken back; SecondsLeft is nil where nothing is pending.
	Deadline    time.Time  `json:"deadline"`
	SecondsLeft *float64   `json:"seconds_left"`
	Began       time.Time  `json:"began"`
	Ended       *time.Time `json:"ended"`
	User        string     `json:"user"`
	// Confirm and Rollback are the commands that settle it, empty where it is settled.
	Confirm  string          `json:"confirm"`
	Rollback string          `json:"rollback"`
	Problems []diagnose.Slug `json:"problems"`
	Values   []Value         `json:"values"`
	Guard    GuardMode       `json:"guard"`
	// Watched is what the guard sees, nil where nothing is pending.
	Watched  *Watched  `json:"watched"`
	Warning  string    `json:"warning"`
	Reason   string    `json:"reason"`
	Outcomes []Outcome `json:"outcomes"`
	// File keeps it over a boot, Manifest is the patch that would, in a pod; both are
	// empty but where confirm was asked for them.
	File     string   `json:"file"`
	Manifest string   `json:"manifest"`
	Notes    []string `json:"notes"`
}

// State is what a change is, for a reader.
type State string

// The states of a change.
const (
	StateApplying  State = "applying"
	StatePending   State = "pending"
	StateConfirmed State = "confirmed"
	StateUndoing   State = "rolling-back"
	StateUndone    State = "rolled-back"
	StateLost      State = "lost-by-boot"
)

var states = map[Kind]State{
	Pending: StateApplying, Written: StateApplying, Applied: StatePending, Confirmed: StateConfirmed,
	Undoing: StateUndoing, Undone: StateUndone, Lost: StateLost,
}

// Value is one key of a change, and what it is now.
type Value struct {
	Scope plan.Scope `json:"scope"`
	Key   string     `json:"key"`
	Old   string     `json:"old"`
	New   string     `json:"new"`
	// Now is nil where it could not be read, and Gone says that its namespace is no more.
	Now  *string `json:"now"`
	Gone bool    `json:"gone"`
	// Forced is why linger refused it before it was forced.
	Forced  string        `json:"forced"`
	Effects []EffectSoFar `json:"effects"`
}

// EffectSoFar is a number that the plan promised to move, and what it is now.
type EffectSoFar struct {
	plan.Effect
	Now *float64 `json:"now"`
}

// Report tells a change with its present values.
func (e *Entry) Report(dir string) Report {
	r := Report{
		ID: e.ID, Schema: Schema, State: states[e.State], Deadline: e.Deadline, Began: e.Began, User: e.User,
		Problems: e.Plan.Problems, Values: []Value{}, Guard: e.Guard, Warning: e.Warning, Reason: e.Reason,
		Outcomes: append([]Outcome{}, e.Outcomes...), Notes: []string{},
	}
	if e.file != nil && e.filed {
		r.File = e.file.Path
	}
	if e.fate != "" {
		r.Notes = append(r.Notes, e.fate)
	}
	if r.Problems == nil {
		r.Problems = []diagnose.Slug{}
	}
	if !e.Ended.IsZero() {
		r.Ended = &e.Ended
	}
	boot, now, err := clock()
	if err == nil && e.isLost(boot) {
		r.State = StateLost
	} else if !e.Settled() {
		r.Rollback = command(dir, "rollback "+e.ID)
		if e.State == Applied {
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

func valueNow(c *plan.Change) Value {
	v := Value{Scope: c.Scope, Key: c.Key, Old: c.Old, New: c.New, Forced: c.Forced, Effects: []EffectSoFar{}}
	for _, effect := range c.Effects {
		v.Effects = append(v.Effects, EffectSoFar{Effect: effect})
	}
	h, _, err := open(c.Scope)
	if err != nil {
		v.Gone = errors.Is(err, ErrGone)
		return v
	}
	defer h.Close()
	if now, err := read(h, c.Key); err == nil {
		v.Now = &now
	}
	return v
}

// InForce tells whether the kernel has the new value.
func (v Value) InForce() bool { return v.Now != nil && plan.Same(*v.Now, v.New) }

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
	if dir != DefaultStateDir {
		rest += " --state-dir " + quoted(dir)
	}
	return program + " " + rest
}

func quoted(text string) string {
	if strings.ContainsAny(text, " \t'\"$\\;&|<>()*?`\n") {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}

// Reports tells all changes that want keeps, the latest last. It reads only.
func Reports(dir string, want func(*Entry) bool) ([]Report, error) {
	records, err := ReadJournal(dir)
	if err != nil {
		return nil, err
	}
	entries, err := Entries(records)
	if err != nil {
		return nil, err
	}
	reports := []Report{}
	for _, e := range entries {
		if want == nil || want(e) {
			reports = append(reports, e.Report(dir))
		}
	}
	return reports, nil
}
