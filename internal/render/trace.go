package render

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"linger/internal/figure"
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
	out := newEncoder(w)
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
	out := newEncoder(w)
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
	out := newEncoder(w)
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
	return clean(line, style.ASCII)
}
