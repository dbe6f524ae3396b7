package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/plan"
)

// The kinds of record that tell the life of a plan that is applied.
const (
	// Begun: its values are about to be written; none has been yet.
	kindBegun journal.Kind = "pending"
	// Written: one value was written and read back.
	kindWritten journal.Kind = "written"
	// Complete: all were. It is taken back at its deadline unless it is confirmed.
	kindComplete journal.Kind = "applied"
	// Warned: the guard saw more connections fail than before.
	kindWarned journal.Kind = "warned"
	// Confirmed: it stays until the next boot.
	kindConfirmed journal.Kind = "confirmed"
	// Undoing: it is about to be taken back; Undone: it was. Stuck: a value could not
	// be written back, which is tried again.
	kindUndoing journal.Kind = "undoing"
	kindStuck   journal.Kind = "stuck"
	kindUndone  journal.Kind = "undone"
	// Lost: the host booted, and run-time values do not outlive that.
	kindLost journal.Kind = "lost"
	// Keeping: a file that keeps it over a boot is to be written when it is confirmed. The
	// journal knows of it before, so that whoever goes on after a crash finds it. Filed: it
	// is there. Forgotten: it was taken away, or could not be written.
	kindKeeping   journal.Kind = "keeping"
	kindFiled     journal.Kind = "filed"
	kindForgotten journal.Kind = "forgotten"
)

// begunDetail is all that is needed to take a plan back.
type begunDetail struct {
	Plan *plan.Plan `json:"plan"`
	// DeadlineNS is by CLOCK_BOOTTIME of this boot, Deadline by the wall clock for people.
	DeadlineNS int64          `json:"deadline_ns"`
	Deadline   time.Time      `json:"deadline"`
	Guard      deed.GuardMode `json:"guard"`
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

type undoingDetail struct {
	Reason deed.Reason `json:"reason"`
	// Force: values and files that others changed are taken back as well.
	Force bool `json:"force,omitempty"`
}

// sentenceDetail is what the guard saw, or what became of a file.
type sentenceDetail struct {
	Sentence string `json:"reason"`
}

type outcomesDetail struct {
	Outcomes []deed.Outcome `json:"outcomes"`
}

// Entry is the life of one plan that was applied, as the journal tells it.
type Entry struct {
	ID    string
	State deed.State
	Plan  *plan.Plan
	// Began and Ended are by the wall clock; Ended is zero for what has not.
	Began    time.Time
	Ended    time.Time
	Deadline time.Time
	Guard    deed.GuardMode
	User     string
	// Reason is why it was taken back, Warning what the guard saw.
	Reason  deed.Reason
	Warning string
	// Outcomes are what became of its values when it was taken back.
	Outcomes []deed.Outcome

	boot       string
	deadlineNS int64
	counters   []plan.Counters
	base       sighting
	stuck      bool
	force      bool
	// file keeps it over a boot, nil where none does or will; filed tells that it was
	// written, fate what became of one that is no more.
	file  *dropIn
	filed bool
	fate  deed.Note
}

// Settled tells whether nothing is left to be done about it.
func (e *Entry) Settled() bool {
	return e.State == deed.Confirmed && !e.isKeeping() || !e.State.InForce()
}

// isKeeping tells whether a file is still to be written.
func (e *Entry) isKeeping() bool { return e.file != nil && !e.filed }

// errUnknownID means that the journal has no such entry.
var errUnknownID = errors.New("no such change")

// entriesOf tells the life of each plan from the records, in the order in which they were
// applied. Records of other kinds are left to others.
func entriesOf(records []journal.Record) ([]*Entry, error) {
	var entries []*Entry
	byID := map[string]*Entry{}
	for _, r := range records {
		if r.Kind == kindBegun {
			var d begunDetail
			if err := json.Unmarshal(r.Detail, &d); err != nil || d.Plan == nil {
				return entries, fmt.Errorf("%w: record %d says nothing of its plan: %w", journal.ErrCorrupt, r.Seq, err)
			}
			e := &Entry{
				ID: r.ID, State: deed.Applying, Plan: d.Plan, Began: r.At, Deadline: d.Deadline, Guard: d.Guard, User: d.User,
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

// take goes on with the life of a plan.
func (e *Entry) take(r journal.Record) error {
	var detail any
	var undoing undoingDetail
	var said sentenceDetail
	var undone outcomesDetail
	var file *dropIn
	switch r.Kind {
	case kindWarned, kindForgotten:
		detail = &said
	case kindUndoing:
		detail = &undoing
	case kindStuck, kindUndone:
		detail = &undone
	case kindKeeping:
		file = &dropIn{}
		detail = file
	}
	if detail != nil {
		if err := json.Unmarshal(r.Detail, detail); err != nil {
			return fmt.Errorf("%w: record %d: %w", journal.ErrCorrupt, r.Seq, err)
		}
	}
	switch r.Kind {
	case kindWritten:
		e.State = deed.Applying
	case kindComplete:
		e.State = deed.Pending
	case kindConfirmed:
		e.State, e.Ended = deed.Confirmed, r.At
	case kindLost:
		e.State, e.Ended = deed.Lost, r.At
	case kindWarned:
		e.Warning = said.Sentence
	case kindUndoing:
		e.State, e.Reason, e.force, e.Ended = deed.Undoing, undoing.Reason, undoing.Force, time.Time{}
	case kindStuck:
		e.Outcomes, e.stuck = undone.Outcomes, true
	case kindUndone:
		e.State, e.Ended, e.Outcomes = deed.Undone, r.At, undone.Outcomes
	case kindKeeping:
		e.file, e.filed, e.fate = file, false, deed.Note{}
	case kindFiled:
		e.filed = true
	case kindForgotten:
		path := ""
		if e.file != nil {
			path = e.file.Path
		}
		e.file, e.filed, e.fate = nil, false, deed.FateOf(path, said.Sentence)
	}
	return nil
}

func entryOf(records []journal.Record, id string) (*Entry, error) {
	entries, err := entriesOf(records)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: %s; `linger history` lists them", errUnknownID, id)
}
