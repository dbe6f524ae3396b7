// Package diagnose judges snapshots: each problem is one file, named by its
// slug, that holds one rule. A rule reads a snapshot and returns findings with
// their evidence, or says that the problem is absent, or that it cannot tell and
// what it would need. Nothing here reads a host, a file or a clock.
package diagnose

import (
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Slug names a problem. It is part of the public contract: it stands in the JSON
// output, and names the problem's rule, page and laboratory.
type Slug string

// Severity is how much a finding matters now.
type Severity string

// Critical: connections fail now, or will within the minute. Warning: a limit is
// near, or something works against its purpose. Info: true, and worth knowing.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Diagnosis is what all rules make of one snapshot.
type Diagnosis struct {
	// Findings are in order of what to look at first, one for each fold.
	Findings []Finding `json:"findings"`
	// Held are the problems that were looked for and are absent.
	Held []Held `json:"held"`
	// Unknown are the problems that a rule could not judge somewhere.
	Unknown []Unknown `json:"unknown"`
}

// Finding is a judgement on a snapshot, with its evidence.
type Finding struct {
	Problem  Slug     `json:"problem"`
	Severity Severity `json:"severity"`
	Netns    Netns    `json:"netns"`
	Subject  Subject  `json:"subject"`
	// Owners are those of this end, Peer the other end where it was read too.
	Owners []snapshot.Owner `json:"owners"`
	Peer   *snapshot.Peer   `json:"peer,omitempty"`

	// Summary is the verdict in one sentence; Brief is what it says where the connections
	// and the namespace stand above it. Why is the mechanism.
	Summary  string     `json:"summary"`
	Brief    string     `json:"-"`
	Why      string     `json:"why"`
	Evidence []Evidence `json:"evidence"`
	// RuledOut are the suspects that the numbers acquit.
	RuledOut []RuledOut `json:"ruled_out"`
	// Confidence is low where Unsure holds something that could turn the verdict.
	Confidence Confidence `json:"confidence"`
	Unsure     []string   `json:"unsure"`

	// Remedies are in the order in which to try them.
	Remedies    []RemedyID `json:"-"`
	WillNotHelp []Folklore `json:"will_not_help"`

	// FailingNow: connections fail in this very window.
	FailingNow bool `json:"failing_now"`
	// SecondsLeft until a limit is met, nil for never at this rate or unknown.
	SecondsLeft *float64 `json:"seconds_left"`

	// CausedBy is the root cause, where another finding of the same fold is it.
	CausedBy Slug `json:"caused_by,omitempty"`
	// Related are the other findings of the fold, in order: those of the same
	// namespace and destination, of the other end of the connections, or of the
	// same setting. The first to act on is the headline, above them.
	Related []Finding `json:"related"`
}

// Netns is the namespace of a finding: enough to name it and to enter it. It is
// empty for what concerns the whole host.
type Netns struct {
	Cookie uint64 `json:"cookie"`
	Inode  uint64 `json:"inode"`
	Label  string `json:"label"`
	PID    int    `json:"pid,omitempty"`
	Path   string `json:"path,omitempty"`
	// Own is true for the namespace that linger itself runs in: commands need not
	// enter it.
	Own bool `json:"own"`
}

// Subject is the group of connections that a finding is about. A finding on a
// whole namespace has no role and no endpoint.
type Subject struct {
	Role   tcp.Role     `json:"role,omitempty"`
	Local  tcp.Endpoint `json:"local"`
	Remote tcp.Endpoint `json:"remote"`
}

// Evidence is one number with its limit and unit, where it comes from, and the
// shell command that shows it.
type Evidence struct {
	Name   string   `json:"name"`
	Value  float64  `json:"value"`
	Limit  *float64 `json:"limit"` // nil where the number has none
	Unit   string   `json:"unit"`
	Source string   `json:"source"`
	Check  string   `json:"check"`
}

// RuledOut is a suspect that is not the cause, and the number that says so.
type RuledOut struct {
	Suspect string `json:"suspect"`
	Because string `json:"because"`
}

// Folklore is advice that circulates for this problem and does not help.
type Folklore struct {
	Advice string `json:"advice"`
	Why    string `json:"why"`
}

// Confidence is how sure a finding is of its subject and cause.
type Confidence string

// High: read from the kernel. Medium: one step was inferred. Low: something that
// could not be read may turn the verdict.
const (
	High   Confidence = "high"
	Medium Confidence = "medium"
	Low    Confidence = "low"
)

// RemedyID names a remedy; the remedy room makes it concrete.
type RemedyID string

// Held is a problem that was looked for and is absent, with the number that says
// so.
type Held struct {
	Problem Slug   `json:"problem"`
	Because string `json:"because"`
}

// Unknown is a problem that could not be judged, and what it would need.
type Unknown struct {
	Problem Slug   `json:"problem"`
	Netns   string `json:"netns,omitempty"`
	Needs   string `json:"needs"`
}
