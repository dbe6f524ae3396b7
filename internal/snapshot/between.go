package snapshot

import (
	"time"

	"linger/internal/tcp"
)

// Interval is what happened between two snapshots of one host: what rose, and who came and went.
type Interval struct {
	// Length is the time from the one snapshot to the other.
	Length time.Duration
	// Softnet is that of the host. It and the counters below have the totals of the second
	// snapshot.
	Softnet Counters
	// Namespaces are those that are in both snapshots, in the order of the second.
	Namespaces []NamespaceInterval
	// Came are in the second snapshot alone, Gone in the first.
	Came, Gone []*Namespace
}

// NamespaceInterval is what happened in one namespace.
type NamespaceInterval struct {
	Before, After       *Namespace
	Counters, Conntrack Counters
	// Groups are those of both snapshots, in the order of the second, then those of the first
	// alone. A group that went to Other, or came from there, seems to be gone, or to have come.
	Groups []Pair[Group]
	// Listeners are in the same order, those on one address (SO_REUSEPORT) told as one.
	Listeners []Pair[Listener]
}

// Pair is something at both ends of an interval: Before is nil where it came, After where it went.
type Pair[T any] struct{ Before, After *T }

// Between compares two snapshots of a host, of which b is the later. Where the host was booted
// between them nothing is in both: its counters and its namespaces have begun anew.
func Between(a, b *Snapshot) *Interval {
	i := &Interval{Length: b.TakenAt.Sub(a.TakenAt), Softnet: risen(a.Host.Softnet, b.Host.Softnet)}
	booted := a.Host.BootID != b.Host.BootID && a.Host.BootID != "" && b.Host.BootID != ""
	if booted {
		i.Softnet.Rise = nil
	}
	stayed := map[*Namespace]bool{}
	for n := range b.Namespaces {
		after := &b.Namespaces[n]
		before := a.Namespace(after.Cookie, after.Inode)
		if before == nil || booted {
			i.Came = append(i.Came, after)
			continue
		}
		stayed[before] = true
		i.Namespaces = append(i.Namespaces, betweenNamespaces(before, after))
	}
	for n := range a.Namespaces {
		if before := &a.Namespaces[n]; !stayed[before] {
			i.Gone = append(i.Gone, before)
		}
	}
	return i
}

// PerSecond is the rate of what rose by that much in the interval; false for an interval without
// a length.
func (i *Interval) PerSecond(rise uint64) (float64, bool) {
	if i.Length <= 0 {
		return 0, false
	}
	return float64(rise) / i.Length.Seconds(), true
}

// Namespace is what happened in a namespace that is in both snapshots, nil for another. It is
// named as for Snapshot.Namespace.
func (i *Interval) Namespace(cookie, inode uint64) *NamespaceInterval {
	for n := range i.Namespaces {
		if i.Namespaces[n].After.is(cookie, inode) {
			return &i.Namespaces[n]
		}
	}
	return nil
}

// risen is the rise from one total to another. Where either was not read none is known.
func risen(a, b Counters) Counters {
	if a.Total == nil || b.Total == nil {
		return Counters{Total: b.Total}
	}
	return NewCounters(a.Total, b.Total)
}

func betweenNamespaces(a, b *Namespace) NamespaceInterval {
	i := NamespaceInterval{Before: a, After: b, Counters: risen(a.Counters, b.Counters)}
	if a.Conntrack != nil && b.Conntrack != nil {
		i.Conntrack = risen(a.Conntrack.Counters, b.Conntrack.Counters)
	}
	type ends struct{ local, remote tcp.Endpoint }
	i.Groups = pairs(a.Groups, b.Groups, func(g *Group) ends { return ends{g.Local, g.Remote} })
	i.Listeners = pairs(a.Listeners, b.Listeners, func(l *Listener) tcp.Endpoint { return l.Local })
	return i
}

// pairs joins what has the same key; of several in one list the first is taken.
func pairs[T any, K comparable](a, b []T, key func(*T) K) (all []Pair[T]) {
	at := map[K]int{}
	for n := range b {
		if _, known := at[key(&b[n])]; !known {
			at[key(&b[n])] = len(all)
			all = append(all, Pair[T]{After: &b[n]})
		}
	}
	for n := range a {
		k := key(&a[n])
		i, known := at[k]
		if !known {
			at[k], i = len(all), len(all)
			all = append(all, Pair[T]{})
		}
		if all[i].Before == nil {
			all[i].Before = &a[n]
		}
	}
	return all
}
