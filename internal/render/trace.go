package render

import (
	"cmp"
	"io"
	"slices"
	"time"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TraceSchema names the form of the lines that trace writes for programs (docs/trace.schema.json).
const TraceSchema = "linger.trace/1"

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
