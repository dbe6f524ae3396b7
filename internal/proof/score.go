package proof

import (
	"cmp"
	"fmt"
	"slices"

	"linger/internal/diagnose"
	"linger/internal/snapshot"
)

// Truth is what was built, as far as a diagnosis has to name it.
type Truth struct {
	// Problem is empty where nothing is wrong.
	Problem diagnose.Slug
	// Netns is the inode of the namespace that has to be named first, and Subject the
	// connections; without a role, the finding is on the namespace as a whole.
	Netns   uint64
	Subject diagnose.Subject
	// Owner is the name of the process that causes it, empty where none does.
	Owner string

	// Consequences are the other problems that follow from it. They may be named in the
	// namespaces of its two ends, on connections with its ports.
	Consequences []diagnose.Slug
	Ends         []uint64
	Ports        []uint16
	// Healthy are processes that must not be blamed.
	Healthy []string
}

// Score is what a diagnosis made of something that was built.
type Score struct {
	// Seed is what it was drawn from, and Drawn tells it in words; absent where it was
	// not drawn.
	Seed  *uint64 `json:"seed,omitempty"`
	Drawn string  `json:"drawn,omitempty"`
	// Built is the slug of the problem, or Healthy.
	Built string `json:"built"`
	// Named are the problems that were named above the level of information, the first
	// first; where the root is information itself, the first is there too.
	Named []diagnose.Slug `json:"named"`
	// Cured are those that were named above information in the cured state, absent where
	// none was built.
	Cured []diagnose.Slug `json:"cured,omitempty"`
	// Absent says why this kernel cannot have the problem, empty where it can.
	Absent string `json:"absent,omitempty"`
	// Cannot says why it could not be built, empty if it was.
	Cannot string `json:"cannot,omitempty"`
	// Miss says what is wrong with the diagnosis, empty if nothing is.
	Miss string `json:"miss,omitempty"`
	// Nobody: all is right but that no owner could be told. A short look on a busy machine
	// may see none of the connections while they are open, and says so.
	Nobody bool `json:"-"`
}

// Healthy is what is built where nothing is wrong.
const Healthy = "healthy"

// Holds compares a diagnosis with what was built.
func (t Truth) Holds(findings []diagnose.Finding) Score {
	s := Score{Built: cmp.Or(string(t.Problem), Healthy), Named: []diagnose.Slug{}}
	for i, f := range findings {
		s.name(f, i == 0 && t.Problem != "")
		for _, r := range f.Related {
			s.name(r, false)
		}
	}
	s.Miss = t.miss(findings)
	if s.Miss != "" && len(findings) > 0 && len(findings[0].Owners) == 0 {
		t.Owner = ""
		s.Nobody = t.miss(findings) == ""
	}
	return s
}

func (s *Score) name(f diagnose.Finding, always bool) {
	if (always || f.Severity != diagnose.Info) && !slices.Contains(s.Named, f.Problem) {
		s.Named = append(s.Named, f.Problem)
	}
}

// miss is the first thing that is wrong.
func (t Truth) miss(findings []diagnose.Finding) string {
	if t.Problem != "" {
		if len(findings) == 0 {
			return "nothing was named"
		}
		if wrong := t.first(findings[0]); wrong != "" {
			return wrong
		}
	}
	for _, f := range findings {
		for _, f := range append([]diagnose.Finding{f}, f.Related...) {
			if wrong := t.other(f); f.Severity != diagnose.Info && wrong != "" {
				return wrong + ": " + f.Summary
			}
		}
	}
	return ""
}

// first is what is wrong with the first finding.
func (t Truth) first(f diagnose.Finding) string {
	subject := diagnose.Subject{Role: f.Subject.Role, Local: f.Subject.Local, Remote: f.Subject.Remote}
	switch {
	case f.Problem != t.Problem:
		return fmt.Sprintf("%s was named first: %s", f.Problem, f.Summary)
	case f.Netns.Inode != t.Netns:
		return "named in another namespace: " + f.Summary
	case t.Subject.Role != "" && subject != t.Subject:
		return fmt.Sprintf("named of %s %s → %s, not of %s %s → %s",
			subject.Role, subject.Local, subject.Remote, t.Subject.Role, t.Subject.Local, t.Subject.Remote)
	case t.Owner != "" && !slices.ContainsFunc(f.Owners, func(o snapshot.Owner) bool { return o.Process == t.Owner && o.PID > 0 }):
		return fmt.Sprintf("%s is not named as its owner", t.Owner)
	}
	return ""
}

// other is what is wrong with any finding.
func (t Truth) other(f diagnose.Finding) string {
	// Whoever is inferred is one of several that it may be, and called so.
	at := slices.IndexFunc(f.Owners, func(o snapshot.Owner) bool {
		return slices.Contains(t.Healthy, o.Process) && (o.How != snapshot.Inferred || len(f.Owners) == 1)
	})
	local, remote := f.Subject.Local.Port, f.Subject.Remote.Port
	switch {
	case t.Problem == "":
		return fmt.Sprintf("%s is named where nothing is wrong", f.Problem)
	case f.Problem != t.Problem && !slices.Contains(t.Consequences, f.Problem):
		return fmt.Sprintf("%s does not follow from it", f.Problem)
	case at >= 0:
		return fmt.Sprintf("%s is blamed for %s, and is healthy", f.Owners[at].Process, f.Problem)
	case len(t.Ends) > 0 && !slices.Contains(t.Ends, f.Netns.Inode):
		return fmt.Sprintf("%s is named in a healthy namespace", f.Problem)
	case len(t.Ports) > 0 && f.Subject.Role != "" && !slices.Contains(t.Ports, local) && !slices.Contains(t.Ports, remote):
		return fmt.Sprintf("%s is named of healthy connections", f.Problem)
	}
	return ""
}
