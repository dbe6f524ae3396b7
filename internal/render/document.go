// Package render writes a diagnosis for people and for programs: as text and as
// JSON. It judges nothing and reads nothing: what it writes was read and judged
// before, and it only decides what stands where and what is left for -v.
package render

import (
	"io"
	"time"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// A Printer writes a document in one form. The errors are those of the writer.
type Printer interface {
	Print(w io.Writer, d *Document) error
}

// Document is what is told: what was read, what is made of it, and what to do.
type Document struct {
	Snapshot *snapshot.Snapshot
	Findings []Finding
	Held     []diagnose.Held
	Unknown  []diagnose.Unknown
	// Elapsed is the time from the start of reading to the end of judging.
	Elapsed time.Duration
}

// Finding is a finding with its remedies made concrete. Its slices are empty
// rather than nil.
type Finding struct {
	diagnose.Finding
	Remedies []remedy.Remedy `json:"remedies"`
	Related  []Finding       `json:"related"`
}

// NewDocument joins a snapshot, its diagnosis and the remedies.
func NewDocument(s *snapshot.Snapshot, d diagnose.Diagnosis, elapsed time.Duration) *Document {
	return &Document{
		Snapshot: s,
		Findings: newFindings(d.Findings, s),
		Held:     d.Held,
		Unknown:  d.Unknown,
		Elapsed:  elapsed,
	}
}

func newFindings(findings []diagnose.Finding, s *snapshot.Snapshot) []Finding {
	told := make([]Finding, len(findings))
	for i, f := range findings {
		told[i] = Finding{
			Finding:  f,
			Remedies: some(remedy.For(f, s)),
			Related:  newFindings(f.Related, s),
		}
		told[i].Owners = some(f.Owners)
		told[i].Evidence = some(f.Evidence)
		told[i].RuledOut = some(f.RuledOut)
		told[i].Unsure = some(f.Unsure)
		told[i].WillNotHelp = some(f.WillNotHelp)
	}
	return told
}

// some turns no slice into an empty one: JSON's null would be a third case for
// every reader.
func some[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// namespaceOf is the namespace of a finding, nil where it concerns the host.
func (d *Document) namespaceOf(n diagnose.Netns) *snapshot.Namespace {
	for i := range d.Snapshot.Namespaces {
		ns := &d.Snapshot.Namespaces[i]
		if n.Cookie != 0 && ns.Cookie == n.Cookie || n.Cookie == 0 && n.Inode != 0 && ns.Inode == n.Inode {
			return ns
		}
	}
	return nil
}

// groupOf is the group of connections that a finding is about, nil for none.
func (d *Document) groupOf(f *Finding) *snapshot.Group {
	ns := d.namespaceOf(f.Netns)
	if ns == nil || f.Subject.Role == "" {
		return nil
	}
	for i := range ns.Groups {
		g := &ns.Groups[i]
		if g.Role == f.Subject.Role && g.Local == f.Subject.Local && g.Remote == f.Subject.Remote {
			return g
		}
	}
	return nil
}

// states counts the sockets of all namespaces.
func (d *Document) states() tcp.States {
	var states tcp.States
	for i := range d.Snapshot.Namespaces {
		states.Add(d.Snapshot.Namespaces[i].States)
	}
	return states
}
