package diagnose

import (
	"cmp"
	"slices"
)

// fold joins the findings that share something under one headline each, and puts
// the headlines in order. The headline is what must be acted on first: the most
// severe, then what fails now, then what has the least time left. That is often an
// effect, such as ports that run out, and then CausedBy names the root cause among
// Related, where it comes first, and whose evidence says why.
func fold(all []draft) []Finding {
	slices.SortStableFunc(all, before)
	parent := make([]int, len(all))
	var root func(int) int
	root = func(i int) int {
		if parent[i] != i {
			parent[i] = root(parent[i])
		}
		return parent[i]
	}
	// The smaller index is the headline, as all are in order.
	join := func(i, j int) {
		a, b := root(i), root(j)
		parent[max(a, b)] = min(a, b)
	}
	first := map[tie]int{}
	for i, f := range all {
		parent[i] = i
		for _, shared := range f.ties {
			if j, known := first[shared]; known {
				join(i, j)
			} else {
				first[shared] = i
			}
		}
	}
	// The two ends of one connection fold, but not the many clients of a service:
	// each of them is to be acted on in its own namespace.
	joined := map[tie]bool{}
	for i, f := range all {
		if j, known := first[f.otherEnd]; known && f.otherEnd != (tie{}) && !joined[f.otherEnd] {
			join(i, j)
			joined[f.otherEnd] = true
		}
	}

	members := map[int][]draft{}
	for i, f := range all {
		members[root(i)] = append(members[root(i)], f)
	}
	folded := []Finding{}
	for i := range all {
		if root(i) == i {
			folded = append(folded, headline(members[i]))
		}
	}
	return folded
}

// headline is the first of a fold with the others as Related, each with its cause.
func headline(fold []draft) Finding {
	out := make([]Finding, len(fold))
	for i, f := range fold {
		out[i] = f.Finding
		out[i].CausedBy = causeOf(f, fold)
		out[i].Related = []Finding{}
		out[i].Owners = some(f.Owners)
		out[i].RuledOut = some(f.RuledOut)
		out[i].Unsure = some(f.Unsure)
	}
	head := out[0]
	head.Related = append(head.Related, out[1:]...)
	// The root cause comes first: it is what the headline goes on to.
	slices.SortStableFunc(head.Related, func(a, b Finding) int {
		return -compareBool(a.Problem == head.CausedBy, b.Problem == head.CausedBy)
	})
	return head
}

// some turns no slice into an empty one, which JSON writes as an array too.
func some[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// causeOf is the problem of the fold that has caused another, the one of more
// sockets where there are two.
func causeOf(effect draft, fold []draft) Slug {
	var cause draft
	for _, f := range fold {
		if slices.Contains(effect.rule.CausedBy, f.Problem) && (cause.Problem == "" || f.sockets > cause.sockets) {
			cause = f
		}
	}
	return cause.Problem
}

// before is the order of findings: severity, failing now, time left, settings
// last; then the larger first, and a fixed order among equals.
func before(a, b draft) int {
	return cmp.Or(
		cmp.Compare(a.Severity.rank(), b.Severity.rank()),
		-compareBool(a.FailingNow, b.FailingNow),
		compareLeft(a.SecondsLeft, b.SecondsLeft),
		compareBool(a.rule.Setting, b.rule.Setting),
		cmp.Compare(a.order, b.order),
		cmp.Compare(b.sockets, a.sockets),
		-compareBool(a.Netns.Own, b.Netns.Own),
		cmp.Compare(a.Netns.Label, b.Netns.Label),
		a.Subject.Local.Addr.Compare(b.Subject.Local.Addr),
		cmp.Compare(a.Subject.Local.Port, b.Subject.Local.Port),
		a.Subject.Remote.Addr.Compare(b.Subject.Remote.Addr),
		cmp.Compare(a.Subject.Remote.Port, b.Subject.Remote.Port),
	)
}

func (s Severity) rank() int {
	return slices.Index([]Severity{Critical, Warning, Info}, s)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// compareLeft puts less time first, and never last.
func compareLeft(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	default:
		return cmp.Compare(*a, *b)
	}
}
