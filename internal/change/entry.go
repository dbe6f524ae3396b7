package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"linger/internal/plan"
)

// The kinds of record that tell the life of one change.
const (
	// Pending: the plan is about to be written; nothing has been yet.
	Pending Kind = "pending"
	// Written: one value was written and read back.
	Written Kind = "written"
	// Applied: all were. It is taken back at its deadline unless it is confirmed.
	Applied Kind = "applied"
	// Warned: the guard saw more connections fail than before.
	Warned Kind = "warned"
	// Confirmed: it stays until the next boot.
	Confirmed Kind = "confirmed"
	// Undoing: it is about to be taken back; Undone: it was. Stuck: a value could not
	// be written back, which is tried again.
	Undoing Kind = "undoing"
	Stuck   Kind = "stuck"
	Undone  Kind = "undone"
	// Lost: the host booted, and run-time values do not outlive that.
	Lost Kind = "lost"
)

// pendingDetail is all that is needed to take a change back.
type pendingDetail struct {
	Plan *plan.Plan `json:"plan"`
	// DeadlineNS is by CLOCK_BOOTTIME of this boot, Deadline by the wall clock for people.
	DeadlineNS int64     `json:"deadline_ns"`
	Deadline   time.Time `json:"deadline"`
	Guard      GuardMode `json:"guard"`
	// Counters are those right before the first write.
	Counters []plan.Counters `json:"counters"`
	// Traced is what tracing saw before it.
	Traced sighting `json:"traced,omitzero"`
	// User is who did it: SUDO_USER, or the user id.
	User string `json:"user"`
}

type writtenDetail struct {
	Key   string     `json:"key"`
	Scope plan.Scope `json:"scope"`
	Value string     `json:"value"`
}

type reasonDetail struct {
	Reason string `json:"reason"`
	// Force: values and files that others changed are taken back as well.
	Force bool `json:"force,omitempty"`
}

type outcomesDetail struct {
	Outcomes []Outcome `json:"outcomes"`
}

// Outcome is what became of one value when its change was taken back.
type Outcome struct {
	Key    string     `json:"key"`
	Scope  plan.Scope `json:"scope"`
	Result Result     `json:"result"`
	// Now is the value after that, empty where it cannot be read.
	Now string `json:"now"`
	// Cause is why it failed.
	Cause string `json:"cause,omitempty"`
}

// Result is what became of a value.
type Result string

// Restored: the old value was written back. Unwritten: it was there already. Kept:
// others had changed the value since, so that it is not linger's to take back. Gone:
// the namespace is, and its values with it. Failed: it could not be written.
const (
	Restored  Result = "restored"
	Unwritten Result = "unwritten"
	Kept      Result = "kept"
	Gone      Result = "gone"
	Failed    Result = "failed"
)

// Entry is one change as the journal tells it.
type Entry struct {
	ID    string     `json:"id"`
	State Kind       `json:"state"`
	Plan  *plan.Plan `json:"plan"`
	// Began and Ended are by the wall clock; Ended is zero for what has not.
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended,omitzero"`
	Deadline time.Time `json:"deadline"`
	Guard    GuardMode `json:"guard"`
	User     string    `json:"user"`
	// Reason is why it was taken back, Warning what the guard saw.
	Reason  string `json:"reason,omitempty"`
	Warning string `json:"warning,omitempty"`
	// Outcomes are what became of its values when it was taken back.
	Outcomes []Outcome `json:"outcomes,omitempty"`

	boot       string
	deadlineNS int64
	counters   []plan.Counters
	base       sighting
	stuck      bool
	force      bool
	// file keeps it over a boot, nil where none does or will; filed tells that it was
	// written, fate what became of one that is no more.
	file  *DropIn
	filed bool
	fate  string
}

// Settled tells whether nothing is left to be done about it.
func (e *Entry) Settled() bool {
	return e.State == Confirmed && !e.isKeeping() || e.State == Undone || e.State == Lost
}

// isKeeping tells whether a file is still to be written.
func (e *Entry) isKeeping() bool { return e.file != nil && !e.filed }

// Story tells in a line what became of it.
func (e *Entry) Story() string {
	switch e.State {
	case Undone:
		return fmt.Sprintf("change %s is taken back: %s", e.ID, e.Reason)
	case Lost:
		return fmt.Sprintf("change %s ended when the host was booted", e.ID)
	default:
		return fmt.Sprintf("change %s is %s", e.ID, e.State)
	}
}

// applying tells whether its values are not all written yet.
func (e *Entry) applying() bool { return e.State == Pending || e.State == Written }

// ErrUnknownID means that the journal has no such change.
var ErrUnknownID = errors.New("no such change")

// Entries tells the life of each change from the records, in the order in which they
// began. Records of other kinds are left to others.
func Entries(records []Record) ([]*Entry, error) {
	var entries []*Entry
	byID := map[string]*Entry{}
	for _, r := range records {
		if r.Kind == Pending {
			var d pendingDetail
			if err := json.Unmarshal(r.Detail, &d); err != nil || d.Plan == nil {
				return entries, fmt.Errorf("%w: record %d says nothing of its plan: %w", ErrCorrupt, r.Seq, err)
			}
			e := &Entry{
				ID: r.ID, State: Pending, Plan: d.Plan, Began: r.At, Deadline: d.Deadline, Guard: d.Guard, User: d.User,
				boot: r.Boot, deadlineNS: d.DeadlineNS, counters: d.Counters, base: d.Traced,
			}
			entries, byID[r.ID] = append(entries, e), e
			continue
		}
		if e := byID[r.ID]; e != nil {
			if err := e.take(r); err != nil {
				return entries, err
			}
		}
	}
	return entries, nil
}

// take goes on with the life of a change.
func (e *Entry) take(r Record) error {
	var detail any
	var reason reasonDetail
	var outcomes outcomesDetail
	var file *DropIn
	switch r.Kind {
	case Written, Applied:
		e.State = r.Kind
	case Confirmed, Lost:
		e.State, e.Ended = r.Kind, r.At
	case Warned, Undoing, Forgotten:
		detail = &reason
	case Keeping:
		file = &DropIn{}
		detail = file
	case Stuck, Undone:
		detail = &outcomes
	}
	if detail != nil {
		if err := json.Unmarshal(r.Detail, detail); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrCorrupt, r.Seq, err)
		}
	}
	switch r.Kind {
	case Warned:
		e.Warning = reason.Reason
	case Undoing:
		e.State, e.Reason, e.force, e.Ended = Undoing, reason.Reason, reason.Force, time.Time{}
	case Stuck:
		e.Outcomes, e.stuck = outcomes.Outcomes, true
	case Undone:
		e.State, e.Ended, e.Outcomes = Undone, r.At, outcomes.Outcomes
	case Keeping:
		e.file, e.filed, e.fate = file, false, ""
	case Filed:
		e.filed = true
	case Forgotten:
		e.file, e.filed, e.fate = nil, false, reason.Reason
	}
	return nil
}

func entryOf(records []Record, id string) (*Entry, error) {
	entries, err := Entries(records)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: %s; `linger history` lists them", ErrUnknownID, id)
}
