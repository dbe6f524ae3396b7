package diagnose

import (
	"fmt"
	"slices"

	"linger/internal/snapshot"
)

// A Rule judges one problem.
type Rule struct {
	Slug  Slug
	Title string
	// Needs is what the rule must be able to read to judge.
	Needs string
	// Setting is true where the finding is about a setting rather than about
	// connections: such findings come last among equals.
	Setting bool

	judge func(*scene) verdict
}

// verdict is what a rule makes of a snapshot.
type verdict struct {
	findings []finding
	// held says with numbers why the problem is absent; empty where it is not, or
	// where it was judged nowhere.
	held    string
	unknown []Unknown
}

// finding is a Finding on its way into a fold.
type finding struct {
	Finding
	rule int
	// sockets is how many it is about: among equals the larger comes first.
	sockets int
	// folds are the names of what it shares with other findings.
	folds []string
	// otherEnd is the name of the service in the namespace of its listener, empty
	// where that was not read.
	otherEnd string
}

// scene is what the rules look at.
type scene struct {
	*snapshot.Snapshot
	t      Thresholds
	places []place
}

// place is one namespace of the scene.
type place struct {
	*snapshot.Namespace
	host    *snapshot.Host
	netns   Netns
	budgets Budgets
}

// Judge applies all rules to a snapshot. It does not change the snapshot.
func Judge(s *snapshot.Snapshot, t Thresholds) Diagnosis {
	sc := &scene{Snapshot: s, t: t, places: make([]place, len(s.Namespaces))}
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		sc.places[i] = place{ns, &s.Host, netnsOf(ns), NewBudgets(ns)}
	}
	d := Diagnosis{Findings: []Finding{}, Held: []Held{}, Unknown: []Unknown{}}
	var all []finding
	for i, rule := range rules {
		v := rule.judge(sc)
		for _, f := range v.findings {
			f.Problem, f.rule = rule.Slug, i
			all = append(all, f)
		}
		if len(v.findings) == 0 && v.held != "" {
			d.Held = append(d.Held, Held{rule.Slug, v.held})
		}
		for _, u := range v.unknown {
			u.Problem = rule.Slug
			d.Unknown = append(d.Unknown, u)
		}
	}
	d.Findings = append(d.Findings, fold(all)...)
	d.Unknown = merge(d.Unknown)
	return d
}

// merge says once what is unknown for the same reason in several namespaces.
func merge(all []Unknown) []Unknown {
	merged := []Unknown{}
	count := map[Unknown]int{}
	for _, u := range all {
		reason := Unknown{Problem: u.Problem, Needs: u.Needs}
		if count[reason]++; count[reason] == 1 {
			merged = append(merged, u)
		}
	}
	for i, u := range merged {
		if n := count[Unknown{Problem: u.Problem, Needs: u.Needs}]; n > 1 {
			merged[i].Netns = fmt.Sprintf("%d namespaces", n)
		}
	}
	return merged
}

func netnsOf(ns *snapshot.Namespace) Netns {
	return Netns{Cookie: ns.Cookie, Inode: ns.Inode, Label: ns.Label.String(), PID: ns.PID, Path: ns.Path, Own: ns.Own}
}

// gap is what the gaps of a namespace need, the first one first.
func (sc *scene) gap(label string) string {
	at := slices.IndexFunc(sc.Gaps, func(g snapshot.Gap) bool { return g.Netns == label && g.Needs != "" })
	if at < 0 {
		return "root"
	}
	return sc.Gaps[at].Needs
}
