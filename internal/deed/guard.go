package deed

import (
	"cmp"
	"fmt"
)

// GuardMode is what is done when more connections fail than before.
type GuardMode string

// GuardWarn says so, GuardRollback takes the values back as well, GuardOff looks at
// nothing.
const (
	GuardWarn     GuardMode = "warn"
	GuardRollback GuardMode = "rollback"
	GuardOff      GuardMode = "off"
)

// Tally is what the guard compares: connections opened, and those that failed.
type Tally struct {
	Opened uint64 `json:"opened"`
	Failed uint64 `json:"failed"`
}

// Watched is what the guard knows of a plan that was applied.
type Watched struct {
	// Before and Since are the connections opened, and those that were reset or failed,
	// while the base line was taken and after the values were written.
	OpenedBefore uint64 `json:"opened_before"`
	FailedBefore uint64 `json:"failed_before"`
	OpenedSince  uint64 `json:"opened_since"`
	FailedSince  uint64 `json:"failed_since"`
	// NoPort is what tracing sees, and no counter tells.
	NoPort NoPort `json:"no_port"`
	// Worse is the verdict on both; Unknown says why there is none on the counters.
	Worse   bool    `json:"worse"`
	Unknown Unknown `json:"unknown,omitzero"`
}

// String is the sentence for it, which the journal keeps when the guard speaks.
func (w Watched) String() string { return w.Counted() + "; " + w.NoPort.String() }

// Counted tells of the counters alone.
func (w Watched) Counted() string {
	return fmt.Sprintf("%d of %d connections were reset or failed since, %d of %d before",
		w.FailedSince, w.OpenedSince, w.FailedBefore, w.OpenedBefore)
}

// NoPort are the connects that found no source port, and the connections that were
// opened meanwhile, before the values were written and since; nil for what is unknown.
type NoPort struct {
	Before *Tally `json:"before"`
	Since  *Tally `json:"since"`
	Worse  bool   `json:"worse"`
	// Unknown says why one of them is.
	Unknown Unknown `json:"unknown,omitzero"`
}

// String is the sentence for it.
func (n NoPort) String() string {
	part := func(t *Tally) string {
		if t == nil {
			return "unknown"
		}
		return fmt.Sprint(t.Failed)
	}
	text := fmt.Sprintf("connects that found no source port: %s since, %s before", part(n.Since), part(n.Before))
	if why := n.Unknown.String(); why != "" {
		text += " (" + why + ")"
	}
	return text
}

// Unknown is why the guard cannot tell; the zero value where it can.
type Unknown struct {
	Kind UnknownKind
	// Few are the resets and failed connects that are too few, and Least how many it takes.
	Few, Least uint64
	// Cause is an error, or what another version of linger wrote.
	Cause string
}

// UnknownKind is the kind of what keeps the guard from telling.
type UnknownKind string

// NoBaseLine: no connection was opened before. TooFew: too few failed since. Untraced:
// nothing was traced before. NoWatcher: nobody traces. NothingYet: the watcher has told
// nothing. NotSeen: for the reason that Cause gives.
const (
	NoBaseLine UnknownKind = "no-base-line"
	TooFew     UnknownKind = "too-few"
	Untraced   UnknownKind = "untraced"
	NoWatcher  UnknownKind = "no-watcher"
	NothingYet UnknownKind = "nothing-yet"
	NotSeen    UnknownKind = "not-seen"
)

var unknowns = map[UnknownKind]string{
	NoBaseLine: "no connection was opened between plan and apply, so that there is no base line",
	Untraced:   "nothing was traced while the plan was made",
	NoWatcher:  "no watcher lives that would trace",
	NothingYet: "the watcher has told nothing yet",
}

// String is the sentence for it, empty where nothing is unknown.
func (u Unknown) String() string {
	if u.Kind == TooFew {
		return fmt.Sprintf("%d resets and failed connects: the guard judges from %d on", u.Few, u.Least)
	}
	return cmp.Or(unknowns[u.Kind], u.Cause)
}

// MarshalText is the sentence, which is all that journals and the JSON of reports have.
func (u Unknown) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText takes a sentence of the journal or of a watcher.
func (u *Unknown) UnmarshalText(text []byte) error {
	*u = Unknown{}
	if len(text) == 0 {
		return nil
	}
	for kind, sentence := range unknowns {
		if sentence == string(text) {
			u.Kind = kind
			return nil
		}
	}
	*u = Unknown{Kind: NotSeen, Cause: string(text)}
	return nil
}
