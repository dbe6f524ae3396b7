package story

import (
	"slices"
	"time"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Document is what is told: what was read, what is made of it, and what to do.
type Document struct {
	Snapshot  *snapshot.Snapshot
	Diagnosis diagnose.Diagnosis
	// Remedies makes the remedies of a finding concrete. It is asked finding by
	// finding, so that a face that writes in pieces never has them all at once.
	Remedies func(f diagnose.Finding) []remedy.Remedy
	// Elapsed is the time from the start of reading to the end of judging.
	Elapsed time.Duration
}

// NewDocument joins a snapshot, its diagnosis and the remedies.
func NewDocument(s *snapshot.Snapshot, d diagnose.Diagnosis, elapsed time.Duration) *Document {
	return &Document{
		Snapshot:  s,
		Diagnosis: d,
		Remedies:  func(f diagnose.Finding) []remedy.Remedy { return remedy.For(f, s) },
		Elapsed:   elapsed,
	}
}

// groupOf is the group of connections that a finding is about, nil for none.
func (d *Document) groupOf(f *diagnose.Finding) *snapshot.Group {
	ns := d.Snapshot.Namespace(f.Netns.Cookie, f.Netns.Inode)
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

// place is of what a verdict speaks: the only namespace that was read, where it
// is not the host's, and the host.
func (d *Document) place() string {
	place := ""
	if all := d.Snapshot.Namespaces; len(all) == 1 && all[0].Label.Kind != snapshot.LabelHost {
		place = " of " + all[0].Label.String()
	}
	if host := d.Snapshot.Host.Name; host != "" {
		place += " of " + host
	}
	return place
}

// states counts the sockets of all namespaces.
func (d *Document) states() tcp.States {
	var states tcp.States
	for i := range d.Snapshot.Namespaces {
		states.Add(d.Snapshot.Namespaces[i].States)
	}
	return states
}

// anyRead tells whether the sockets of a namespace could be read.
func (d *Document) anyRead() bool {
	return slices.ContainsFunc(d.Snapshot.Namespaces, func(ns snapshot.Namespace) bool { return ns.SocketsRead })
}
