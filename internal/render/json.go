package render

import (
	"io"

	"linger/internal/capacity"
	"linger/internal/diagnose"
	"linger/internal/plan"
	"linger/internal/proof"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/story"
)

// Schema names the form of the JSON document (docs/diagnosis.schema.json).
const Schema = "linger.diagnosis/1"

// JSON writes a document for a program, in the form that docs/output.md
// describes. It writes piece by piece: thousands of groups take no more memory
// than one.
type JSON struct{}

// Print writes the document.
func (JSON) Print(w io.Writer, d *story.Document) error {
	s := newStream(w)
	s.object(func() {
		s.member("schema", Schema)
		s.member("taken_at", d.Snapshot.TakenAt)
		s.member("elapsed_ms", d.Elapsed.Milliseconds())
		s.member("window_ms", d.Snapshot.WindowMS)
		s.member("traced_ms", d.Snapshot.TracedMS)
		s.member("host", d.Snapshot.Host)
		s.name("namespaces")
		s.array(func() {
			for i := range d.Snapshot.Namespaces {
				s.separate()
				namespace(s, &d.Snapshot.Namespaces[i])
			}
		})
		s.name("findings")
		s.array(func() {
			for _, f := range d.Diagnosis.Findings {
				s.element(tell(d, f))
			}
		})
		elements(s, "held", d.Diagnosis.Absent)
		elements(s, "unknown", d.Diagnosis.Unknown)
		elements(s, "gaps", d.Snapshot.Gaps)
	})
	return s.end()
}

func namespace(s *stream, ns *snapshot.Namespace) {
	budgets := diagnose.NewBudgets(ns)
	s.object(func() {
		s.member("label", ns.Label)
		s.member("cookie", orNull(ns.Cookie))
		s.member("inode", orNull(ns.Inode))
		s.member("own", ns.Own)
		s.member("pid", orNull(ns.PID))
		s.member("path", orNull(ns.Path))
		s.member("addresses", some(ns.Addresses))
		s.member("settings", ns.Settings)
		s.member("counters", ns.Counters)
		s.member("sockstat", ns.Sockstat)
		s.member("conntrack", ns.Conntrack)
		s.member("sockets_read", ns.SocketsRead)
		s.member("sockets_complete", ns.SocketsComplete)
		s.member("states", ns.States)
		s.name("listeners")
		s.array(func() {
			for _, l := range ns.Listeners {
				s.element(listener{l, some(l.Owners)})
			}
		})
		s.member("bound_time_wait", ns.BoundTimeWait)
		s.member("wanted", some(ns.Wanted))
		s.member("traced", ns.Traced)
		s.member("self_connected", some(ns.SelfConnected))
		s.name("groups")
		s.array(func() {
			for i := range ns.Groups {
				s.element(newGroup(budgets, &ns.Groups[i]))
			}
		})
		s.member("other", ns.Other)
	})
}

// listener is a snapshot's listener whose owners are always there.
type listener struct {
	snapshot.Listener
	Owners []snapshot.Owner `json:"owners"`
}

// group is a snapshot's group with the account of its source ports, and with
// arrays that are always there.
type group struct {
	*snapshot.Group
	Clients []snapshot.Client `json:"clients"`
	Owners  []snapshot.Owner  `json:"owners"`
	Budget  *capacity.Budget  `json:"budget"`
}

func newGroup(budgets diagnose.Budgets, g *snapshot.Group) group {
	told := group{Group: g, Clients: some(g.Clients), Owners: some(g.Owners)}
	if budget, known := budgets.Of(g); known {
		told.Budget = &budget
	}
	return told
}

// finding is a finding with its remedies made concrete, and with arrays that are
// always there.
type finding struct {
	diagnose.Finding
	Netns    netns           `json:"netns"`
	Remedies []remedy.Remedy `json:"remedies"`
	Related  []finding       `json:"related"`
}

// netns is the namespace of a finding, which may have none.
type netns struct {
	diagnose.Netns
	Cookie any `json:"cookie"`
	Inode  any `json:"inode"`
}

// tell makes a finding and what is folded under it ready to be written.
func tell(d *story.Document, f diagnose.Finding) finding {
	told := finding{Finding: f, Remedies: some(d.Remedies(f)), Related: make([]finding, len(f.Related))}
	told.Netns = netns{f.Netns, orNull(f.Netns.Cookie), orNull(f.Netns.Inode)}
	told.Owners = some(f.Owners)
	told.Evidence = some(f.Evidence)
	told.RuledOut = some(f.RuledOut)
	told.Unsure = some(f.Unsure)
	told.WillNotHelp = some(f.WillNotHelp)
	for i, related := range f.Related {
		told.Related[i] = tell(d, related)
	}
	return told
}

// orNull is null for what a snapshot holds as zero because it is unknown.
func orNull[T comparable](v T) any {
	var unknown T
	if v == unknown {
		return nil
	}
	return v
}

// some turns no slice into an empty one: JSON's null would be a third case for
// every reader.
func some[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// Plan writes a plan for a person to read, and for linger apply (docs/plan.schema.json).
func (JSON) Plan(w io.Writer, p *plan.Plan) error {
	e := newEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

// Lab writes one object (docs/lab.schema.json).
func (JSON) Lab(w io.Writer, l *proof.Lab) error { return newEncoder(w).Encode(l) }

// Scores writes one object (docs/score.schema.json).
func (JSON) Scores(w io.Writer, s *proof.Scores) error { return newEncoder(w).Encode(s) }

// Proved writes one object (docs/prove.schema.json).
func (JSON) Proved(w io.Writer, p *proof.Proved) error { return newEncoder(w).Encode(p) }
