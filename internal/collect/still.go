package collect

import (
	"maps"
	"slices"
	"time"

	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// To walk over the sockets of a namespace takes as long as the table that all namespaces share is
// large, however few are its own: milliseconds each, where there are hundreds of namespaces. A
// namespace is still when nothing can have changed there since the last walk: all its
// connections were established, not one segment passed, and nobody accepted. Then its groups are
// what they were.

// stillFor is how long a namespace may be still until its sockets are walked over all the same.
const stillFor = time.Minute

// walk is a complete walk over the sockets of a namespace, and what had changed with them.
type walk struct {
	at             time.Time
	sorted         group.Sorted
	settings       snapshot.Settings
	sockstat       snapshot.Sockstat
	counters       [len(countsOfChange)]uint64
	listeners      []snapshot.Listener
	listenerInodes []uint32
}

// countsOfChange rise, but for TcpCurrEstab, with whatever changes a connection: with each segment
// that comes or goes, and with those that are aborted without one (tcp_set_state of
// net/ipv4/tcp.c).
var countsOfChange = [...]string{
	"TcpInSegs", "TcpOutSegs", "TcpRetransSegs", "TcpActiveOpens", "TcpPassiveOpens", "TcpAttemptFails", "TcpEstabResets", "TcpCurrEstab",
}

// findStill finds the namespaces that are still. Roles are told by who listens anywhere: when a
// listener or an address came or went in any namespace, none is.
func (r *reading) findStill() {
	var doors []*door
	for _, ns := range r.namespaces {
		doors = append(doors, ns.door)
	}
	same := r.lastIndex != nil && slices.Equal(doors, r.lastDoors) && r.index.Same(r.lastIndex)
	for _, ns := range r.namespaces {
		ns.still = same && ns.isStill(r.snapshot.TakenAt)
	}
	r.lastIndex, r.lastDoors = r.index, doors
}

// walkOf takes note of what belongs to the walk that was just made; nil where it cannot be told
// when that is no longer true.
func (ns *namespace) walkOf(now time.Time) *walk {
	others := ns.sorted.States
	others[tcp.Established] = 0
	if !ns.facts.SocketsComplete || ns.facts.Sockstat == nil || others.Total() > 0 || ns.facts.BoundPorts != nil {
		return nil
	}
	w := &walk{
		at: now, sorted: ns.sorted, settings: ns.settings, sockstat: *ns.facts.Sockstat,
		listeners: slices.Clone(ns.facts.Listeners), listenerInodes: ns.listenerInodes,
	}
	for i, name := range countsOfChange {
		n, known := ns.facts.Counters.Total[name]
		if !known {
			return nil
		}
		w.counters[i] = n
	}
	return w
}

// isStill tells whether the sockets are what they were at the last walk.
func (ns *namespace) isStill(now time.Time) bool {
	w := ns.walked
	if w == nil || now.Sub(w.at) >= stillFor || ns.facts.Sockstat == nil || *ns.facts.Sockstat != w.sockstat {
		return false
	}
	for i, name := range countsOfChange {
		if n, known := ns.facts.Counters.Total[name]; !known || n != w.counters[i] {
			return false
		}
	}
	return maps.Equal(ns.settings, w.settings) && slices.Equal(ns.listenerInodes, w.listenerInodes) &&
		slices.EqualFunc(ns.facts.Listeners, w.listeners, func(a, b snapshot.Listener) bool {
			return a.Local == b.Local && a.AcceptQueue == b.AcceptQueue
		})
}
