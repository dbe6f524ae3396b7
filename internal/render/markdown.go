package render

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/remedy"
	"linger/internal/snapshot"
)

// Markdown writes the document for a ticket: GitHub's Markdown, with everything that
// -v tells.
type Markdown struct{}

// Print writes the document.
func (Markdown) Print(w io.Writer, d *Document) error {
	m := &markdown{out: bufio.NewWriter(w)}
	m.line("# linger: %s", escape(verdictOf(d)))
	states := d.states()
	m.line("\n%s, kernel %s, %s: %s, %s, %s in TIME_WAIT.", escape(d.Snapshot.Host.Name), escape(d.Snapshot.Host.Kernel),
		d.Snapshot.TakenAt.UTC().Format("2006-01-02 15:04:05 UTC"), figure.Of(len(d.Snapshot.Namespaces), "namespace", "namespaces"),
		figure.Of(states.Total(), "socket", "sockets"), figure.Count(states.TimeWaitSockets()))
	for i := range d.Diagnosis.Findings {
		m.finding(d, &d.Diagnosis.Findings[i], "##")
	}
	bullets(m, "What was looked for and is absent", d.Diagnosis.Absent, func(h diagnose.Absent) string {
		return "**" + escape(string(h.Problem)) + "**: " + escape(h.Because)
	})
	bullets(m, "What cannot be told", d.Diagnosis.Unknown, func(u diagnose.Unknown) string {
		where := ""
		if u.Netns != "" {
			where = " in " + u.Netns
		}
		return "**" + escape(string(u.Problem)) + "**" + escape(where+": needs "+u.Needs)
	})
	bullets(m, "What could not be read", d.Snapshot.Gaps, func(g snapshot.Gap) string {
		where := ""
		if g.Netns != "" {
			where = " of " + g.Netns
		}
		return escape(g.What + where + ": " + firstOf(g.Cause) + "; needs " + g.Needs)
	})
	return m.out.Flush()
}

// verdictOf is the worst that was found, in a few words.
func verdictOf(d *Document) string {
	if !slices.ContainsFunc(d.Snapshot.Namespaces, func(ns snapshot.Namespace) bool { return ns.SocketsRead }) {
		return "no socket could be read"
	}
	if len(d.Diagnosis.Findings) == 0 || d.Diagnosis.Findings[0].Severity == diagnose.Info {
		return "nothing is wrong with the TIME_WAIT state" + d.place()
	}
	f := d.Diagnosis.Findings[0]
	return string(f.Severity) + ", " + string(f.Problem)
}

// markdown keeps the first error in its writer, which Flush returns.
type markdown struct{ out *bufio.Writer }

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(m.out, format+"\n", args...) }

func bullets[T any](m *markdown, title string, items []T, text func(T) string) {
	if len(items) == 0 {
		return
	}
	m.line("\n## %s\n", title)
	for _, item := range items {
		m.line("- %s", text(item))
	}
}

func (m *markdown) finding(d *Document, f *diagnose.Finding, level string) {
	m.line("\n%s %s: %s\n", level, strings.ToUpper(string(f.Severity)), escape(heading(f)))
	m.line("**%s**\n", escape(summary(f)))
	m.line("%s", escape(f.Why))
	who := make([]string, 0, len(f.Owners)+1)
	for _, o := range f.Owners {
		who = append(who, owner(o)+": "+because(o, true))
	}
	if f.Peer != nil {
		who = append(who, "other end: "+otherEnd(f.Peer))
	}
	m.part("Who", who)
	if len(f.Evidence) > 0 {
		m.line("\n| number | value | limit | check by hand |\n|---|---|---|---|")
		for _, e := range f.Evidence {
			most := ""
			if e.Limit != nil {
				most = figure.Count(*e.Limit)
			}
			// A pipe would end the cell, in a code span as well.
			m.line("| %s | %s %s | %s | %s |", escape(e.Name), figure.Count(e.Value), escape(e.Unit), most, strings.ReplaceAll(code(e.Check), "|", `\|`))
		}
	}
	var not []string
	for _, r := range f.RuledOut {
		not = append(not, r.Suspect+": "+r.Because)
	}
	m.part("It is not", not)
	m.remedies(d.Remedies(*f))
	var folklore []string
	for _, w := range f.WillNotHelp {
		folklore = append(folklore, w.Advice+": "+w.Why)
	}
	m.part("What will not help", folklore)
	m.part("Unsure", f.Unsure)
	for i := range f.Related {
		m.finding(d, &f.Related[i], level+"#")
	}
}

func (m *markdown) part(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	m.line("\n%s:\n", title)
	for _, line := range lines {
		m.line("- %s", escape(line))
	}
}

func (m *markdown) remedies(all []remedy.Remedy) {
	if len(all) == 0 {
		return
	}
	m.line("\nWhat helps, in this order:")
	for i, r := range all {
		lead := fmt.Sprintf("%d. ", i+1)
		indent := strings.Repeat(" ", len(lead))
		m.line("\n%s**%s**", lead, escape(r.Title))
		if r.Change != "" {
			m.line("%s%s", indent, escape(r.Change))
		}
		for _, e := range r.Examples {
			m.line("\n%s%s: %s", indent, escape(e.Program), code(e.Line))
		}
		if r.Now != "" {
			m.line("\n%sNow: %s", indent, code(r.Now))
		}
		if r.Persist != nil {
			m.line("\n%sFor ever, in %s: %s", indent, escape(r.Persist.File), code(r.Persist.Line))
			if r.Persist.Note != "" {
				m.line("%s(%s)", indent, escape(r.Persist.Note))
			}
		}
		m.line("\n%s%s", indent, escape(price(r)))
	}
}

// price is what a remedy frees, what it risks, and when to leave it.
func price(r remedy.Remedy) string {
	var said []string
	for _, part := range []struct{ lead, text string }{{"Frees ", r.Frees}, {"Risk: ", r.Risk}, {"Not when ", r.NotWhen}} {
		if part.text != "" {
			said = append(said, stop(part.lead+part.text))
		}
	}
	return strings.Join(said, " ")
}

// escape makes one line of plain text of what a process or a file may have named:
// nothing of it is read as Markdown or HTML (CommonMark 2.4).
func escape(text string) string {
	text = strings.ReplaceAll(clean(text, false), string(noBreak), " ")
	var b strings.Builder
	start := true // of the text: a number or a dash there would begin a list
	for _, r := range text {
		switch {
		case start && strings.ContainsRune("-=.)", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case strings.ContainsRune("\\`*_[]#+!|~>$@", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
		start = start && (r >= '0' && r <= '9' || r == ' ')
	}
	return b.String()
}

// code is a code span of one line, fenced by more backquotes than it holds.
func code(text string) string {
	text = clean(text, false)
	if strings.TrimSpace(text) == "" {
		return ""
	}
	longest, run := 0, 0
	for _, r := range text {
		if r != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	fence := strings.Repeat("`", longest+1)
	return fence + " " + text + " " + fence
}
