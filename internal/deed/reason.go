package deed

import "strings"

// Reason is why a plan that was applied is taken back; the zero value where it is not.
type Reason struct {
	Kind ReasonKind
	// Detail is what the guard saw, the error of a plan that could not be applied, or what
	// another version of linger wrote.
	Detail string
}

// ReasonKind is the kind of a reason.
type ReasonKind string

// The kinds of reason.
const (
	ByHand   ReasonKind = "by-hand"
	Deadline ReasonKind = "deadline"
	// Unwatched: its watcher was killed, and another process saw that the deadline was over.
	Unwatched ReasonKind = "unwatched"
	// Unreadable: the deadline was over, and the journal was damaged, so that nobody can
	// have confirmed.
	Unreadable ReasonKind = "unreadable"
	// JournalGone: the journal was removed before the deadline.
	JournalGone ReasonKind = "journal-gone"
	// Killed: the process that applied the plan, or took it back, was.
	Killed ReasonKind = "killed"
	// Guarded: more connections failed than before.
	Guarded ReasonKind = "guard"
	// NotApplied: a value could not be written, or no watcher started.
	NotApplied ReasonKind = "not-applied"
	// ReasonTold: the journal has a sentence that this version does not write.
	ReasonTold ReasonKind = "told"
)

// sentences are how the journal keeps each kind of reason; a detail follows the last ones.
var sentences = []struct {
	kind   ReasonKind
	text   string
	detail bool
}{
	{ByHand, "asked for", false},
	{Deadline, "it was not confirmed in time", false},
	{Unwatched, "it was not confirmed in time, and its watcher was killed", false},
	{Unreadable, "it was not confirmed in time, and the journal cannot be read", false},
	{JournalGone, "the journal was removed, so that nobody can confirm it", false},
	{Killed, "the process that changed it was killed", false},
	{Guarded, "the guard: ", true},
	{NotApplied, "it could not be applied: ", true},
}

// String is the sentence for it, empty for no reason.
func (r Reason) String() string {
	for _, s := range sentences {
		if s.kind == r.Kind {
			return s.text + r.Detail
		}
	}
	return r.Detail
}

// MarshalText is the sentence, which is all that journals and the JSON of reports have.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes a sentence of the journal; one of another version is ReasonTold.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = Reason{}
	if len(text) == 0 {
		return nil
	}
	for _, s := range sentences {
		detail, found := strings.CutPrefix(string(text), s.text)
		if found && (s.detail || detail == "") {
			*r = Reason{s.kind, detail}
			return nil
		}
	}
	*r = Reason{ReasonTold, string(text)}
	return nil
}
