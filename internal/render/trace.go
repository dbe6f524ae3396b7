package render

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"linger/internal/diagnose"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TraceSchema names the form of the lines that trace writes for programs (docs/trace.schema.json).
const TraceSchema = "linger.trace/1"

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
		if !row.None() || row.Live > 0 {
			out = append(out, *row)
		}
	}
	weight := func(r traceRow) uint64 { return r.Opens + r.Ended() + r.Failures() + sumOf(r.Resets.Sent) }
	slices.SortFunc(out, func(a, b traceRow) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(b.Live, a.Live),
			cmp.Compare(a.name, b.name), cmp.Compare(a.where, b.where), cmp.Compare(a.role, b.role))
	})
	return out
}

func sumOf(counts map[string]uint64) (n uint64) {
	for _, count := range counts {
		n += count
	}
	return n
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

// TraceTable writes what was traced for a person.
type TraceTable struct {
	Style Style
	By    TraceBy
	// Wide adds what single connections have sent and received.
	Wide bool
	// Rows is how many are written, the busiest; 0 is all.
	Rows int
	// Cut is where lines end, for a screen on which none may wrap; 0 leaves them whole.
	Cut int
}

// Print writes one table: of an interval the numbers per second, of a whole trace the numbers
// themselves. It returns how many lines it wrote.
func (t TraceTable) Print(w io.Writer, traced *snapshot.Traced, total bool) (lines int, err error) {
	out := bufio.NewWriter(w)
	for _, line := range t.lines(traced, total) {
		fmt.Fprintln(out, line)
		lines++
	}
	return lines, out.Flush()
}

func (t TraceTable) lines(traced *snapshot.Traced, total bool) []string {
	table := [][]string{{string(t.By), "where", "role", "opens", "FIN here", "FIN there", "RST here", "RST there", "failed", "open", "p50", "p99"}}
	if t.Wide {
		table[0] = append(table[0], "sent p50", "p99", "received p50", "p99")
	}
	if t.By == ByReason {
		table = [][]string{{"reason", "number"}}
	}
	per := float64(traced.MS) / 1000
	unit := "per second"
	if total {
		per, unit = 1, "in all"
	}
	n := func(v uint64) string { return number(roundTo(float64(v)/per, 2)) }
	sum := traced.Total()
	left := 0
	if t.By == ByReason {
		for _, r := range reasons(&sum) {
			table = append(table, []string{r.name, n(r.n)})
		}
	} else {
		all := rows(traced, t.By)
		if t.Rows > 0 && len(all) > t.Rows {
			all, left = all[:t.Rows], len(all)-t.Rows
		}
		for _, r := range all {
			table = append(table, append([]string{r.name, r.where, roleWord(r.role)}, t.numbers(&r.TracedCounts, n)...))
		}
		if len(table) > 2 || left > 0 {
			table = append(table, append([]string{"all", "", ""}, t.numbers(&sum, n)...))
		}
	}
	lines := []string{t.Style.paint(strong, t.title(traced, &sum, total, unit))}
	lines = append(lines, t.layOut(table)...)
	if left > 0 {
		lines = append(lines, t.Style.paint(faint, count(left, "more row", "more rows")))
	}
	if missed := traced.Missed; missed != nil && *missed > 0 {
		lines = append(lines, t.Style.paint(toneWarning, clean(count(int(*missed), "event was missed", "events were missed")+
			" by the kernel: a row may lack that many (docs/tracing.md)", t.Style.ASCII)))
	}
	return lines
}

func (t TraceTable) title(traced *snapshot.Traced, sum *snapshot.TracedCounts, total bool, unit string) string {
	at := traced.Began.Add(time.Duration(traced.MS) * time.Millisecond).Format("15:04:05")
	text := fmt.Sprintf("%s  %s opened, %s ended, %s failed in %s", at, diagnose.Count(sum.Opens), diagnose.Count(sum.Ended()),
		diagnose.Count(sum.Failures()), elapsed(time.Duration(traced.MS)*time.Millisecond))
	if total {
		text = "TOTAL  " + text
	}
	return clean(text+"; "+unit+":", t.Style.ASCII)
}

func (t TraceTable) numbers(c *snapshot.TracedCounts, n func(uint64) string) []string {
	life := func(q float64) string {
		us, known := c.Lives.Quantile(q)
		if !known {
			return "–"
		}
		return elapsed(time.Duration(us) * time.Microsecond)
	}
	size := func(h snapshot.Histogram, q float64) string {
		bytes, known := h.Quantile(q)
		if !known {
			return "–"
		}
		return diagnose.Size(int64(bytes))
	}
	cells := []string{n(c.Opens), n(c.ClosedHere), n(c.ClosedThere), n(c.AbortedHere), n(c.ResetThere + c.TimedOut),
		n(c.Failures()), diagnose.Count(c.Live), life(0.5), life(0.99)}
	if t.Wide {
		cells = append(cells, size(c.Sent, 0.5), size(c.Sent, 0.99), size(c.Received, 0.5), size(c.Received, 0.99))
	}
	return cells
}

func roleWord(role tcp.Role) string {
	if role == tcp.RoleUnknown {
		return "–"
	}
	return string(role)
}

func roundTo(v float64, digits int) float64 {
	scale := 1.0
	for range digits {
		scale *= 10
	}
	return float64(int64(v*scale+0.5)) / scale
}

// widestWhere is how much of a namespace's label a table shows.
const widestWhere = 24

// layOut makes columns, the words to the left and the numbers to the right.
func (t TraceTable) layOut(table [][]string) []string {
	words := 3
	if t.By == ByReason {
		words = 1
	}
	widths := make([]int, len(table[0]))
	for _, row := range table {
		if t.By != ByReason && utf8.RuneCountInString(row[1]) > widestWhere {
			row[1] = string([]rune(row[1])[:widestWhere-1]) + "…"
		}
		for i := range row {
			row[i] = clean(row[i], t.Style.ASCII)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var lines []string
	for at, row := range table {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if i < words {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
		}
		line := strings.TrimRight(b.String(), " ")
		if t.Cut > 0 && utf8.RuneCountInString(line) > t.Cut {
			line = string([]rune(line)[:t.Cut])
		}
		if at == 0 {
			line = t.Style.paint(faint, line)
		}
		lines = append(lines, line)
	}
	return lines
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

// traceHead begins each line for a program.
type traceHead struct {
	Schema     string    `json:"schema"`
	Kind       string    `json:"kind"` // interval or total
	At         time.Time `json:"at"`
	IntervalMS int64     `json:"interval_ms"`
}

func newTraceHead(kind string, t *snapshot.Traced) traceHead {
	return traceHead{TraceSchema, kind, t.Began.Add(time.Duration(t.MS) * time.Millisecond), t.MS}
}

// tracedGroup is one group in an interval.
type tracedGroup struct {
	traceHead
	*snapshot.TracedGroup
	snapshot.Spreads
}

// tracedTotal is the sum over all groups since the beginning.
type tracedTotal struct {
	traceHead
	*snapshot.TracedCounts
	snapshot.Spreads
	Missed *uint64 `json:"missed_events"`
}

// TraceLines writes what was traced as JSON, one object to a line.
type TraceLines struct{}

// Interval writes a line for each group in which something happened.
func (TraceLines) Interval(w io.Writer, t *snapshot.Traced) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	groups := slices.Clone(t.Groups)
	if !t.Other.None() {
		groups = append(groups, snapshot.TracedGroup{TracedKey: snapshot.TracedKey{Role: tcp.RoleUnknown}, TracedCounts: t.Other})
	}
	slices.SortFunc(groups, func(a, b snapshot.TracedGroup) int { return cmp.Compare(b.Opens, a.Opens) })
	for i := range groups {
		g := &groups[i]
		if g.None() {
			continue
		}
		if err := out.Encode(tracedGroup{newTraceHead("interval", t), g, g.Spread()}); err != nil {
			return err
		}
	}
	return nil
}

// Total writes the line that ends it: the sums since the beginning.
func (TraceLines) Total(w io.Writer, t *snapshot.Traced) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	sum := t.Total()
	return out.Encode(tracedTotal{newTraceHead("total", t), &sum, sum.Spread(), t.Missed})
}

// traceEnd is one ended connection for a program.
type traceEnd struct {
	Schema string `json:"schema"`
	Kind   string `json:"kind"`
	*snapshot.EndedConnection
}

// End writes a line for one connection that has ended.
func (TraceLines) End(w io.Writer, e *snapshot.EndedConnection) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	return out.Encode(traceEnd{TraceSchema, "end", e})
}

// TraceEnd is a line for a person on one connection that has ended.
func TraceEnd(style Style, e *snapshot.EndedConnection) string {
	arrow := "→"
	if e.Role == tcp.Acceptor {
		arrow = "←"
	}
	who := clean(cmp.Or(e.Process, "(not seen)"), style.ASCII)
	if e.PID > 0 {
		who += fmt.Sprintf(" (%d)", e.PID)
	}
	life := "life unknown"
	if e.LifeMS != nil {
		life = elapsed(time.Duration(*e.LifeMS * float64(time.Millisecond)))
	}
	why := e.Ending
	if e.Reason != "" {
		why += " (" + e.Reason + ")"
	}
	line := fmt.Sprintf("%s  %-24s %s %s %s  %s  %s  sent %s, received %s", e.Ended.Format("15:04:05.000"), who,
		e.Local, arrow, e.Remote, why, life, diagnose.Size(int64(e.BytesSent)), diagnose.Size(int64(e.BytesReceived)))
	if e.Weight > 1 {
		line += fmt.Sprintf("  × %d", e.Weight)
	}
	return clean(line, style.ASCII)
}
