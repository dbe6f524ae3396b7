// Package deed is what linger did to a host, as plain data: a plan that was applied, with
// why it was taken back and what became of its values, and sockets that were reaped. It
// holds the sentences that the journal and the JSON keep, and does nothing itself.
package deed

import (
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

// Report is a plan that was applied, as it is told, with what the kernel says now.
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
	Reason   Reason    `json:"reason"`
	Outcomes []Outcome `json:"outcomes"`
	// File keeps it over a boot, Manifest is the patch that would, in a pod; both are
	// empty but where confirm was asked for them.
	File     string `json:"file"`
	Manifest string `json:"manifest"`
	Notes    []Note `json:"notes"`
}

// State is what a plan that was applied has come to.
type State string

// The states: Applying until all its values are written, Pending until it is confirmed or
// taken back, Lost where a boot has ended it.
const (
	Applying  State = "applying"
	Pending   State = "pending"
	Confirmed State = "confirmed"
	Undoing   State = "rolling-back"
	Undone    State = "rolled-back"
	Lost      State = "lost-by-boot"
)

// InForce tells whether its values are, or are to be, in the kernel.
func (s State) InForce() bool { return s != Undone && s != Lost }

// Value is one value that was changed, and what it is now.
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

// InForce tells whether the kernel has the new value.
func (v Value) InForce() bool { return v.Now != nil && plan.Same(*v.Now, v.New) }

// EffectSoFar is a number that the plan promised to move, and what it is now.
type EffectSoFar struct {
	plan.Effect
	Now *float64 `json:"now"`
}

// Outcome is what became of one value when it was taken back.
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

// Restored: the old value was written back. Unwritten: it was there already. Theirs:
// others had changed the value since, so that it is not linger's to take back. Gone:
// the namespace is, and its values with it. Failed: it could not be written.
const (
	Restored  Result = "restored"
	Unwritten Result = "unwritten"
	Theirs    Result = "kept"
	Gone      Result = "gone"
	Failed    Result = "failed"
)
