package story

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TraceBy is what the rows of a table of traced connections are about.
type TraceBy string

// What rows may be about.
const (
	ByProcess     TraceBy = "process"
	ByContainer   TraceBy = "container"
	ByDestination TraceBy = "destination"
	ByReason      TraceBy = "reason"
)

// traceRow is a line of the table.
type traceRow struct {
	name, where string
	role        tcp.Role
	snapshot.TracedCounts
}

// rows adds up groups, the busiest first.
func rows(t *snapshot.Traced, by TraceBy) []traceRow {
	type key struct {
		name, where string
		role        tcp.Role
	}
	sums := map[key]*traceRow{}
	add := func(k key, c *snapshot.TracedCounts) {
		if sums[k] == nil {
			sums[k] = &traceRow{name: k.name, where: k.where, role: k.role}
		}
		sums[k].Add(c)
	}
	for i := range t.Groups {
		g := &t.Groups[i]
		add(key{traceName(g, by), traceWhere(g), g.Role}, &g.TracedCounts)
	}
	for name, c := range map[string]*snapshot.TracedCounts{"(more than fit)": &t.Other, "(given up)": &t.Past} {
		if !c.None() {
			add(key{name: name, role: tcp.RoleUnknown}, c)
		}
	}
	var out []traceRow
	for _, row := range sums {
		if row.Opens+row.Ended()+row.Failures()+row.Live > 0 {
			out = append(out, *row)
		}
	}
	weight := func(r traceRow) uint64 { return r.Opens + r.Ended() + r.Failures() }
	slices.SortFunc(out, func(a, b traceRow) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(b.Live, a.Live),
			cmp.Compare(a.name, b.name), cmp.Compare(a.where, b.where), cmp.Compare(a.role, b.role))
	})
	return out
}

func traceName(g *snapshot.TracedGroup, by TraceBy) string {
	switch {
	case by == ByContainer:
		return cmp.Or(podName(g.Pod), g.Container, "(no container)")
	case g.Role == tcp.RoleUnknown:
		return "(no connection)"
	case by == ByDestination && g.Role == tcp.Connector:
		return "→ " + g.Remote.String()
	case by == ByDestination:
		return g.Local.String()
	default:
		return cmp.Or(g.Process, "(not seen)")
	}
}

func podName(uid string) string {
	if uid == "" {
		return ""
	}
	return "pod " + uid
}

func traceWhere(g *snapshot.TracedGroup) string {
	return cmp.Or(podName(g.Pod), g.Container, g.Netns)
}

type reasonCount struct {
	name string
	n    uint64
}

// reasons are why connections ended or failed, and why resets were sent, the most frequent first.
func reasons(c *snapshot.TracedCounts) []reasonCount {
	var all []reasonCount
	add := func(name string, n uint64) {
		if n > 0 {
			all = append(all, reasonCount{name, n})
		}
	}
	add("closed here first", c.ClosedHere)
	add("closed there first", c.ClosedThere)
	add("dropped here without a FIN", c.AbortedHere)
	add("reset there", c.ResetThere)
	add("timed out", c.TimedOut)
	for name, n := range c.Failed {
		add("connect() failed: "+name, n)
	}
	for name, n := range c.Resets.Sent {
		add("reset sent: "+name, n)
	}
	add("reset received", c.Resets.Received)
	slices.SortFunc(all, func(a, b reasonCount) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name))
	})
	return all
}

// TraceForm is what is told of connections that were traced.
type TraceForm struct {
	By TraceBy
	// Wide adds what single connections have sent and received.
	Wide bool
	// Rows is how many are told, the busiest; 0 is all.
	Rows int
	// Total: it is of a whole trace, and the numbers are told themselves; else they are of
	// an interval, and told per second.
	Total bool
}

// Trace tells what was traced.
func Trace(traced *snapshot.Traced, form TraceForm) *Table {
	per := float64(traced.MS) / 1000
	unit := "per second"
	if form.Total {
		per, unit = 1, "in all"
	}
	n := func(v uint64) string { return figure.Number(roundTo(float64(v)/per, 2)) }
	sum := traced.Total()
	t := &Table{Title: Clean(form.title(traced, &sum, unit))}
	left := 0
	if form.By == ByReason {
		t.Columns = words("reason", "number")
		t.Columns[1].Words = false
		for _, r := range reasons(&sum) {
			t.Rows = append(t.Rows, cells(r.name, n(r.n)))
		}
	} else {
		t.Columns = form.columns()
		all := rows(traced, form.By)
		if form.Rows > 0 && len(all) > form.Rows {
			all, left = all[:form.Rows], len(all)-form.Rows
		}
		for _, r := range all {
			row := cells(slices.Concat([]string{r.name, r.where, ""}, form.numbers(&r.TracedCounts, n))...)
			row[2] = roleCell(r.role)
			t.Rows = append(t.Rows, row)
		}
		if len(t.Rows) > 1 || left > 0 {
			t.Rows = append(t.Rows, cells(slices.Concat([]string{"all", "", ""}, form.numbers(&sum, n))...))
		}
	}
	if left > 0 {
		t.Below = append(t.Below, Item{Tone: Faint, Text: Clean(figure.Of(left, "more row", "more rows"))})
	}
	if missed := traced.Missed; missed != nil && *missed > 0 {
		t.Below = append(t.Below, Item{Tone: Warning, Text: Clean(figure.Of(int(*missed), "event was missed", "events were missed") +
			" by the kernel: a row may lack that many (docs/tracing.md)")})
	}
	return t
}

func (t TraceForm) title(traced *snapshot.Traced, sum *snapshot.TracedCounts, unit string) string {
	at := traced.Began.Add(time.Duration(traced.MS) * time.Millisecond).Format("15:04:05")
	text := fmt.Sprintf("%s  %s opened, %s ended, %s failed in %s", at, figure.Count(sum.Opens), figure.Count(sum.Ended()),
		figure.Count(sum.Failures()), figure.Elapsed(time.Duration(traced.MS)*time.Millisecond))
	if t.Total {
		text = "TOTAL  " + text
	}
	return text + "; " + unit + ":"
}

// widestWhere is how many columns of a screen a table shows of a namespace's label.
const widestWhere = 24

func (t TraceForm) columns() []Column {
	columns := words(string(t.By), "where", "role")
	columns[0].Give = GiveLast
	columns[1].Give, columns[1].Most = GiveFirst, widestWhere
	columns[2].Give = GiveWord
	number := func(first, second string) {
		columns = append(columns, Column{First: Clean(first), Second: Clean(second)})
	}
	number("", "opens")
	for _, kind := range []string{"FIN", "RST"} {
		number(kind, "here")
		number(kind, "there")
	}
	for _, name := range []string{"failed", "open", "p50", "p99"} {
		number("", name)
	}
	if t.Wide {
		for _, what := range []string{"sent", "received"} {
			number(what, "p50")
			number(what, "p99")
		}
	}
	return columns
}

// roleCell is the word of a role, or the way in which its connections go.
func roleCell(role tcp.Role) Cell {
	switch role {
	case tcp.Connector:
		return Cell{Text: Clean(string(role)), Sign: Clean("→")}
	case tcp.Acceptor:
		return Cell{Text: Clean(string(role)), Sign: Clean("←")}
	case tcp.RoleUnknown:
		return Cell{Text: Clean("–")}
	}
	return Cell{Text: Clean(string(role))}
}

// numbers are the cells of all columns but the words.
func (t TraceForm) numbers(c *snapshot.TracedCounts, n func(uint64) string) []string {
	life := func(q float64) string {
		us, known := c.Lives.Quantile(q)
		if !known {
			return "–"
		}
		return figure.Elapsed(time.Duration(us) * time.Microsecond)
	}
	size := func(h snapshot.Histogram, q float64) string {
		bytes, known := h.Quantile(q)
		if !known {
			return "–"
		}
		return figure.Size(int64(bytes))
	}
	cells := []string{n(c.Opens), n(c.ClosedHere), n(c.ClosedThere), n(c.AbortedHere), n(c.ResetThere + c.TimedOut),
		n(c.Failures()), figure.Count(c.Live), life(0.5), life(0.99)}
	if t.Wide {
		cells = append(cells, size(c.Sent, 0.5), size(c.Sent, 0.99), size(c.Received, 0.5), size(c.Received, 0.99))
	}
	return cells
}

func roundTo(v float64, digits int) float64 {
	scale := 1.0
	for range digits {
		scale *= 10
	}
	return float64(int64(v*scale+0.5)) / scale
}

// TraceEnd tells one connection that has ended in a line.
func TraceEnd(e *snapshot.EndedConnection) Text {
	arrow := "→"
	if e.Role == tcp.Acceptor {
		arrow = "←"
	}
	// The column is as wide as what is shown of the name.
	who := Clean(cmp.Or(e.Process, "(not seen)")).String()
	if e.PID > 0 {
		who += fmt.Sprintf(" (%d)", e.PID)
	}
	life := "life unknown"
	if e.LifeMS != nil {
		life = figure.Elapsed(time.Duration(*e.LifeMS * float64(time.Millisecond)))
	}
	why := e.Ending
	if e.Reason != "" {
		why += " (" + e.Reason + ")"
	}
	line := fmt.Sprintf("%s  %-24s %s %s %s  %s  %s  sent %s, received %s", e.Ended.Format("15:04:05.000"), who,
		e.Local, arrow, e.Remote, why, life, figure.Size(int64(e.BytesSent)), figure.Size(int64(e.BytesReceived)))
	if e.Weight > 1 {
		line += fmt.Sprintf("  × %d", e.Weight)
	}
	return Clean(line)
}

// TraceUntold tells that more connections have ended than there are lines.
func TraceUntold(n uint64) Text { return Clean(fmt.Sprintf("%d more ended and are in no line", n)) }
