package story

import (
	"fmt"
	"slices"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

const (
	// problemsTold and notesTold are how many findings are told one by one where there
	// is little room; the others are counted.
	problemsTold = 8
	notesTold    = 4
	// needsTold is how many needs are told one by one.
	needsTold = 3
)

// Diagnosis tells what is wrong, who causes it, and what to do. With whole set all of it
// is told, for a page or for -v; else what may find room on a terminal.
func Diagnosis(d *Document, whole bool) *Story {
	var problems, notes []diagnose.Finding
	for _, f := range d.Diagnosis.Findings {
		if f.Severity == diagnose.Info {
			notes = append(notes, f)
		} else {
			problems = append(problems, f)
		}
	}
	states := d.states()
	s := &Story{
		Title: Clean(titleOf(d)),
		Head: Head{
			Host: Clean(d.Snapshot.Host.Name), Kernel: Clean(d.Snapshot.Host.Kernel), At: d.Snapshot.TakenAt,
			Counts: cleanAll([]string{
				figure.Of(len(d.Snapshot.Namespaces), "namespace", "namespaces"), figure.Of(states.Total(), "socket", "sockets"),
				figure.Count(states.TimeWaitSockets()) + " in TIME_WAIT",
			}),
		},
		Parts:    groupOf(d, problems, problemsTold, "problem", whole),
		Notes:    groupOf(d, notes, notesTold, "note", whole),
		Sections: []Section{absent(d), unknown(d), gaps(d)},
		Lacks:    lacks(d),
		Counts:   counts(d, len(problems)),
	}
	if len(problems) == 0 {
		s.Verdict = calm(d)
	}
	return s
}

// groupOf tells so many findings one by one.
func groupOf(d *Document, findings []diagnose.Finding, one int, noun string, whole bool) Group {
	if len(findings) == 0 {
		return Group{}
	}
	g := Group{Names: Clean(tally(findings) + ": `linger -v`")}
	for i := range findings {
		if i < one {
			g.Parts = append(g.Parts, partOf(d, &findings[i], whole))
			continue
		}
		if i == one {
			left := figure.Of(len(findings)-i, noun, noun+"s")
			g.Rest = Clean("and " + left + " more: " + tally(findings[i:]) + ". `linger -v` tells each.")
		}
		if !whole {
			break
		}
		p := partOf(d, &findings[i], whole)
		p.Rank = Whole
		g.Parts = append(g.Parts, p)
	}
	return g
}

// titleOf is the worst that was found, in a few words.
func titleOf(d *Document) string {
	if !d.anyRead() {
		return "no socket could be read"
	}
	if len(d.Diagnosis.Findings) == 0 || d.Diagnosis.Findings[0].Severity == diagnose.Info {
		return "nothing is wrong with the TIME_WAIT state" + d.place()
	}
	f := d.Diagnosis.Findings[0]
	return string(f.Severity) + ", " + string(f.Problem)
}

// calm is the verdict where nothing is wrong.
func calm(d *Document) Headline {
	if !d.anyRead() {
		return Headline{markUnknown, Clean("no socket could be read, so that nothing can be said of the TIME_WAIT state" + d.place())}
	}
	verdict := "nothing is wrong with the TIME_WAIT state" + d.place()
	if len(d.Diagnosis.Unknown) > 0 || len(d.Snapshot.Gaps) > 0 {
		verdict += ", as far as could be read"
	}
	return Headline{markOK, Clean(verdict)}
}

func absent(d *Document) Section {
	s := Section{Label: Label{Short: "HELD", Long: "What was looked for and is absent"}}
	for _, h := range d.Diagnosis.Absent {
		s.Items = append(s.Items, Item{Rank: Whole, Name: Clean(string(h.Problem)), Text: Clean(h.Because)})
	}
	return s
}

func unknown(d *Document) Section {
	s := Section{Label: Label{Short: "UNSURE", Long: "What cannot be told", Verb: "cannot tell"}}
	for _, u := range d.Diagnosis.Unknown {
		where := ""
		if u.Netns != "" {
			where = " in " + u.Netns
		}
		s.Items = append(s.Items, Item{Rank: Whole, Name: Clean(string(u.Problem)), Where: Clean(where), Text: Clean("needs " + u.Needs)})
	}
	return s
}

func gaps(d *Document) Section {
	s := Section{Label: Label{Short: "GAPS", Long: "What could not be read"}}
	for _, g := range d.Snapshot.Gaps {
		s.Items = append(s.Items, Item{Rank: Whole, Text: Clean(g.What + of(g) + ": " + firstOf(g.Cause) + "; needs " + g.Needs)})
	}
	return s
}

// of is the place of a gap.
func of(g snapshot.Gap) string {
	if g.Netns == "" {
		return ""
	}
	return " of " + g.Netns
}

// firstOf is the first of several causes, a line each, and how many more there are:
// what one need would mend is one gap.
func firstOf(cause string) string {
	lines := strings.Split(cause, "\n")
	if len(lines) == 1 {
		return cause
	}
	return fmt.Sprintf("%s, and %d more", lines[0], len(lines)-1)
}

// lacks says what could not be read or judged, one item for each thing that is needed.
func lacks(d *Document) Section {
	var needs, things, problems []string
	what := map[string][]string{}
	add := func(need, thing string) {
		if what[need] == nil {
			needs = append(needs, need)
		}
		if !slices.Contains(what[need], thing) {
			what[need] = append(what[need], thing)
		}
	}
	for _, g := range d.Snapshot.Gaps {
		add(g.Needs, g.What)
		things = append(things, g.What)
	}
	for _, u := range d.Diagnosis.Unknown {
		add(u.Needs, string(u.Problem))
		problems = append(problems, string(u.Problem))
	}
	s := Section{Label: Label{Short: "GAPS"}, InALine: inALine(things, problems)}
	for i, need := range needs {
		rank := Always
		if i >= needsTold {
			rank = Whole
		}
		s.Items = append(s.Items, Item{Rank: rank, Kind: &Noun{}, Text: Clean(strings.Join(what[need], ", ") + ": needs " + need)})
	}
	return s
}

// inALine names what could not be read or judged, or counts it.
func inALine(things, problems []string) []Text {
	var counted []string
	if n := len(things); n > 0 {
		counted = append(counted, figure.Of(n, "thing was", "things were")+" not read")
	}
	if n := len(problems); n > 0 {
		counted = append(counted, figure.Of(n, "problem", "problems")+" cannot be judged")
	}
	if counted == nil {
		return nil
	}
	const rest = ": `linger -v`"
	names := slices.Concat(things, problems)
	slices.Sort(names)
	return cleanAll([]string{strings.Join(slices.Compact(names), ", ") + rest, strings.Join(counted, ", ") + rest})
}

// counts is the line that ends it.
func counts(d *Document, problems int) []Item {
	states := d.states()
	var all []Item
	add := func(i Item, text string) {
		i.Text = Clean(glue(text))
		all = append(all, i)
	}
	add(Item{}, figure.Of(len(d.Snapshot.Namespaces), "namespace", "namespaces"))
	add(Item{}, figure.Of(states.Total(), "socket", "sockets"))
	add(Item{}, figure.Count(states[tcp.TimeWait])+" TIME_WAIT")
	add(Item{}, figure.Of(problems, "problem", "problems"))
	add(Item{}, figure.Count(len(d.Diagnosis.Absent))+" held")
	if n := len(d.Snapshot.Gaps); n > 0 {
		add(Item{Until: Counted}, figure.Of(n, "gap", "gaps"))
	}
	add(Item{}, figure.Elapsed(d.Elapsed))
	return all
}

// tally counts findings by problem: 12 close-wait-leak, 3 tw-reuse.
func tally(findings []diagnose.Finding) string {
	var order []diagnose.Slug
	counts := map[diagnose.Slug]int{}
	for _, f := range findings {
		if counts[f.Problem] == 0 {
			order = append(order, f.Problem)
		}
		counts[f.Problem]++
	}
	parts := make([]string, len(order))
	for i, slug := range order {
		parts[i] = figure.Count(counts[slug]) + " " + string(slug)
	}
	return strings.Join(parts, ", ")
}
