package diagnose

import (
	"fmt"
	"slices"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// A Rule judges one problem. All that the rest of linger has to know of the problem is
// declared here.
type Rule struct {
	Slug  Slug
	Title string
	// Needs is what the rule must be able to read to judge.
	Needs string
	// Setting is true where the finding is about a setting rather than about
	// connections: such findings come last among equals.
	Setting bool
	// Thresholds are the numbers from which on it is a problem.
	Thresholds []Threshold
	// CausedBy are the problems that can be its root cause.
	CausedBy []Slug
	// Remedies are all that a finding of the rule may name.
	Remedies []RemedyID

	judge func(*scene) verdict
}

// verdict is what a rule makes of a snapshot.
type verdict struct {
	findings []draft
	// absent says with numbers why the problem is; empty where it is not, or where it
	// was judged nowhere.
	absent  string
	unknown []Unknown
}

// draft is a Finding on its way into a fold.
type draft struct {
	Finding
	// of and where stand before and after its summary, which is brief until it is judged.
	of, where string
	rule      Rule
	// order is the place of the rule among all.
	order int
	// hostWide: it is about the host, of which its namespace is an example.
	hostWide bool
	// sockets is how many it is about: among equals the larger comes first.
	sockets int
	// ties are what it shares with other findings.
	ties []tie
	// otherEnd is the service in the namespace of its listener, the zero tie where that
	// was not read.
	otherEnd tie
}

// tie is something that findings share: a service as seen from a namespace, or a
// setting and its value.
type tie struct {
	netns   NetnsID
	service tcp.Endpoint
	setting string
	value   int64
}

// scene is what the rules look at.
type scene struct {
	*snapshot.Snapshot
	thresholds Thresholds
	places     []*place
}

// threshold is the value of a threshold.
func (sc *scene) threshold(t Threshold) float64 { return sc.thresholds.Of(t) }

// place is one namespace of the scene.
type place struct {
	*snapshot.Namespace
	host    *snapshot.Host
	netns   Netns
	budgets Budgets
}

// Judge applies all rules to a snapshot. It does not change the snapshot.
func Judge(s *snapshot.Snapshot, t Thresholds) Diagnosis {
	sc := &scene{Snapshot: s, thresholds: t, places: make([]*place, len(s.Namespaces))}
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		sc.places[i] = &place{ns, &s.Host, netnsOf(ns), NewBudgets(ns)}
	}
	d := Diagnosis{Findings: []Finding{}, Absent: []Absent{}, Unknown: []Unknown{}}
	var all []draft
	for i, rule := range Rules() {
		v := rule.judge(sc)
		for _, f := range v.findings {
			f.rule, f.order = rule, i
			f.Problem, f.Key.Problem = rule.Slug, rule.Slug
			f.Brief, f.Summary = f.Summary, f.of+f.Summary+f.where
			if !f.hostWide {
				f.Key.Netns = f.Netns.ID()
			}
			all = append(all, f)
		}
		if len(v.findings) == 0 && v.absent != "" {
			d.Absent = append(d.Absent, Absent{rule.Slug, v.absent})
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
	type reason struct {
		problem Slug
		needs   string
	}
	merged := []Unknown{}
	count, at := map[reason]int{}, map[reason]int{}
	for _, u := range all {
		r := reason{u.Problem, u.Needs}
		if count[r]++; count[r] == 1 {
			at[r] = len(merged)
			merged = append(merged, u)
			continue
		}
		first := &merged[at[r]]
		first.Netns = fmt.Sprintf("%d namespaces", count[r])
		for _, place := range u.Places {
			if !slices.Contains(first.Places, place) {
				first.Places = append(first.Places, place)
			}
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
