package render

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Text writes a document for a person: the verdict first, then who, why, what it
// is not, what to do and what is unsure; one line that counts comes last.
type Text struct {
	Style Style
}

const (
	// page is how many lines a report on one problem may have: an incident's
	// terminal is 80 columns by 24 lines.
	page = 24
	// problemsTold and notesTold are how many findings are told one by one
	// without -v; the others are counted.
	problemsTold = 8
	notesTold    = 4
	// proofLines is how many lines of a page are kept for what proves a problem and
	// acquits others, before anything else is told.
	proofLines = 6
)

// gapsForm is how what is missing is told: not at all, as a number, or with what
// it needs.
type gapsForm int

const (
	gapsNone gapsForm = iota
	gapsCounted
	gapsTold
)

// needsTold is how many needs are told one by one without -v.
const needsTold = 3

// Print writes the document.
func (t Text) Print(w io.Writer, d *Document) error {
	var problems, notes []diagnose.Finding
	for _, f := range d.Diagnosis.Findings {
		if f.Severity == diagnose.Info {
			notes = append(notes, f)
		} else {
			problems = append(problems, f)
		}
	}

	var lines []string
	switch {
	case t.Style.Verbose:
		lines = slices.Concat(t.everything(d, problems, notes), t.end(d, len(problems), gapsNone))
	case len(problems) == 0:
		lines = slices.Concat(t.calm(d), t.notes(notes), t.end(d, 0, gapsTold))
	case len(problems) == 1:
		lines = t.one(d, &problems[0], notes)
	default:
		lines = slices.Concat(t.several(d, problems), t.notes(notes), t.end(d, len(problems), gapsTold))
	}

	out := bufio.NewWriter(w)
	for _, line := range lines {
		out.WriteString(line)
		out.WriteByte('\n')
	}
	return out.Flush()
}

// one tells the only problem in as much detail as a page allows. Where notes and
// gaps take what the problem needs they are only named.
func (t Text) one(d *Document, f *diagnose.Finding, notes []diagnose.Finding) []string {
	much := least
	told := t.finding(d, f, much)
	rest := slices.Concat(t.notes(notes), t.end(d, 1, gapsTold))
	if len(told)+len(rest) > page-proofLines {
		rest = slices.Concat(t.noteNames(notes), t.end(d, 1, gapsCounted))
	}
	if len(told)+len(rest) > page {
		much.unsure = 0
		told = t.finding(d, f, much)
	}
	for _, add := range additions {
		next := much
		add(&next)
		if with := t.finding(d, f, next); len(with)+len(rest) <= page {
			much, told = next, with
		}
	}
	return slices.Concat(told, rest)
}

// several tells many problems, each compact.
func (t Text) several(d *Document, problems []diagnose.Finding) []string {
	b := block{style: t.Style}
	for i := range problems {
		if i == problemsTold {
			b.blank()
			b.full(plain, "and "+figure.Of(len(problems)-i, "problem", "problems")+" more: "+tally(problems[i:])+". `linger -v` tells each.")
			break
		}
		b.blank()
		b.lines = append(b.lines, t.finding(d, &problems[i], compact)...)
	}
	return b.lines
}

// notes tells informative findings, a few lines each.
func (t Text) notes(notes []diagnose.Finding) []string {
	b := block{style: t.Style}
	for i := range notes {
		if i == 0 {
			b.lines = append(b.lines, "")
		}
		if i == notesTold {
			b.full(faint, "and "+figure.Of(len(notes)-i, "note", "notes")+" more: "+tally(notes[i:])+". `linger -v` tells each.")
			break
		}
		f := &notes[i]
		text := summary(f)
		if len(f.Owners) > 0 {
			text = stop(text) + " By " + owners(f.Owners) + inferred(f.Owners) + "."
		}
		b.headline(markOf(f.Severity), heading(f))
		b.paragraph("", plain, text)
	}
	return b.lines
}

// noteNames names informative findings.
func (t Text) noteNames(notes []diagnose.Finding) []string {
	if len(notes) == 0 {
		return nil
	}
	b := block{style: t.Style, lines: []string{""}}
	b.headline(markOf(diagnose.Info), tally(notes)+": `linger -v`")
	return b.lines
}

// everything is what -v tells.
func (t Text) everything(d *Document, problems, notes []diagnose.Finding) []string {
	b := block{style: t.Style}
	if len(problems) == 0 {
		b.lines = t.calm(d)
	}
	for _, findings := range [][]diagnose.Finding{problems, notes} {
		for i := range findings {
			b.blank()
			b.lines = append(b.lines, t.finding(d, &findings[i], complete)...)
		}
	}
	b.blank()
	b.section("HELD")
	for _, h := range d.Diagnosis.Absent {
		b.paragraph("", plain, string(h.Problem)+": "+h.Because)
	}
	b.section("UNSURE")
	for _, u := range d.Diagnosis.Unknown {
		where := ""
		if u.Netns != "" {
			where = " in " + u.Netns
		}
		b.paragraph("", plain, fmt.Sprintf("cannot tell %s%s; needs %s", u.Problem, where, u.Needs))
	}
	b.section("GAPS")
	for _, g := range d.Snapshot.Gaps {
		where := ""
		if g.Netns != "" {
			where = " of " + g.Netns
		}
		b.paragraph("", plain, fmt.Sprintf("%s%s: %s; needs %s", g.What, where, firstOf(g.Cause), g.Needs))
	}
	b.label = ""
	return b.lines
}

// calm is the verdict where nothing is wrong.
func (t Text) calm(d *Document) []string {
	b := block{style: t.Style}
	if !slices.ContainsFunc(d.Snapshot.Namespaces, func(ns snapshot.Namespace) bool { return ns.SocketsRead }) {
		b.headline(markUnknown, "no socket could be read, so that nothing can be said of the TIME_WAIT state"+d.place())
		return b.lines
	}
	verdict := "nothing is wrong with the TIME_WAIT state" + d.place()
	if len(d.Diagnosis.Unknown) > 0 || len(d.Snapshot.Gaps) > 0 {
		verdict += ", as far as could be read"
	}
	b.headline(markOK, verdict)
	return b.lines
}

// end is what is missing, and the line that counts.
func (t Text) end(d *Document, problems int, gaps gapsForm) []string {
	b := block{style: t.Style, lines: []string{""}}
	t.missing(&b, d, gaps)
	states := d.states()
	counts := []string{
		figure.Of(len(d.Snapshot.Namespaces), "namespace", "namespaces"),
		figure.Of(states.Total(), "socket", "sockets"),
		figure.Count(states[tcp.TimeWait]) + " TIME_WAIT",
		figure.Of(problems, "problem", "problems"),
		figure.Count(len(d.Diagnosis.Absent)) + " held",
	}
	if n := len(d.Snapshot.Gaps); n > 0 && gaps != gapsCounted {
		counts = append(counts, figure.Of(n, "gap", "gaps"))
	}
	counts = append(counts, figure.Elapsed(d.Elapsed))
	for i := range counts {
		counts[i] = glue(counts[i])
	}
	b.full(faint, strings.Join(counts, dot))
	return b.lines
}

// missing says what could not be read or judged.
func (t Text) missing(b *block, d *Document, form gapsForm) {
	gaps, unknown := len(d.Snapshot.Gaps), len(d.Diagnosis.Unknown)
	if gaps+unknown == 0 || form == gapsNone {
		return
	}
	b.section("GAPS")
	if form == gapsCounted {
		b.paragraph("", plain, t.missingInALine(d))
		return
	}
	needs := lacking(d)
	for i, line := range needs {
		if i == needsTold {
			b.paragraph("", faint, fmt.Sprintf("%d more: `linger -v`", len(needs)-i))
			break
		}
		b.paragraph("", plain, line)
	}
}

// missingInALine names what could not be read or judged where a line has room for
// it, and else counts it.
func (t Text) missingInALine(d *Document) string {
	var things, problems, counted []string
	for _, g := range d.Snapshot.Gaps {
		things = append(things, g.What)
	}
	for _, u := range d.Diagnosis.Unknown {
		problems = append(problems, string(u.Problem))
	}
	if n := len(things); n > 0 {
		counted = append(counted, figure.Of(n, "thing was", "things were")+" not read")
	}
	if n := len(problems); n > 0 {
		counted = append(counted, figure.Of(n, "problem", "problems")+" cannot be judged")
	}
	const rest = ": `linger -v`"
	names := slices.Concat(things, problems)
	slices.Sort(names)
	if named := strings.Join(slices.Compact(names), ", ") + rest; utf8.RuneCountInString(named) <= t.Style.width()-margin {
		return named
	}
	return strings.Join(counted, ", ") + rest
}

// lacking says what could not be read or judged, one sentence for each thing
// that is needed.
func lacking(d *Document) []string {
	var needs []string
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
	}
	for _, u := range d.Diagnosis.Unknown {
		add(u.Needs, string(u.Problem))
	}
	for i, need := range needs {
		needs[i] = strings.Join(what[need], ", ") + ": needs " + need
	}
	return needs
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

// stop ends a sentence.
func stop(text string) string {
	if text == "" || strings.ContainsAny(text[len(text)-1:], ".!?:") {
		return text
	}
	return text + "."
}
