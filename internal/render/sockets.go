package render

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/sockets"
	"linger/internal/tcp"
)

// SocketsSchema names the form of the JSON of linger sockets
// (docs/sockets.schema.json).
const SocketsSchema = "linger.sockets/1"

// Sockets is a table of groups, and what it was read from.
type Sockets struct {
	Snapshot *snapshot.Snapshot
	Table    sockets.Table
	Elapsed  time.Duration
}

// socketRow is a row as JSON tells it.
type socketRow struct {
	Key     any              `json:"key"`
	Netns   any              `json:"netns"`
	Role    any              `json:"role"`
	Local   *tcp.Endpoint    `json:"local"`
	Remote  *tcp.Endpoint    `json:"remote"`
	Groups  int              `json:"groups"`
	Sockets int              `json:"sockets"`
	States  tcp.States       `json:"states"`
	Owners  []snapshot.Owner `json:"owners"`
	Budget  *capacity.Budget `json:"budget"`

	Closes *snapshot.CloseHistory `json:"closes"`
}

func newSocketRow(r *sockets.Row) socketRow {
	told := socketRow{
		Key: orNull(r.Key), Netns: orNull(r.Netns), Role: orNull(r.Role), Groups: r.Groups,
		Sockets: r.States.Total(), States: r.States, Owners: some(r.Owners), Budget: r.Budget, Closes: r.Closes,
	}
	if r.Groups == 1 {
		told.Local, told.Remote = &r.Local, &r.Remote
	}
	return told
}

// JSON writes the table for a program.
func (d Sockets) JSON(w io.Writer) error {
	s := newStream(w)
	s.object(func() {
		s.member("schema", SocketsSchema)
		s.member("taken_at", d.Snapshot.TakenAt)
		s.member("elapsed_ms", d.Elapsed.Milliseconds())
		s.member("window_ms", d.Snapshot.WindowMS)
		s.member("by", d.Table.By)
		s.name("rows")
		s.array(func() {
			for i := range d.Table.Rows {
				s.element(newSocketRow(&d.Table.Rows[i]))
			}
		})
		s.member("left", snapshot.Other{Groups: d.Table.Left, States: d.Table.LeftStates})
		s.member("other", d.Table.Other)
		elements(s, "notes", d.Table.Notes)
		elements(s, "gaps", d.Snapshot.Gaps)
	})
	return s.end()
}

// CSV writes the table with a line of names. What it leaves out goes nowhere: a table
// has no place for it.
func (d Sockets) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	states := statesOf(d.Table)
	header := []string{"key", "netns", "role", "local", "remote", "groups", "sockets"}
	for _, s := range states {
		header = append(header, strings.ToLower(s.String()))
	}
	header = append(header, "owner", "owner_pid", "owner_how", "ports_used", "ports", "closes_last_minute")
	_ = out.Write(header) // kept by the writer, as all its errors
	for i := range d.Table.Rows {
		r := &d.Table.Rows[i]
		row := []string{r.Key, r.Netns, string(r.Role), "", "", strconv.Itoa(r.Groups), strconv.Itoa(r.States.Total())}
		if r.Groups == 1 {
			row[3], row[4] = r.Local.String(), r.Remote.String()
		}
		for _, s := range states {
			row = append(row, strconv.Itoa(r.States[s]))
		}
		row = append(row, "", "", "", "", "", "0")
		last := row[len(row)-6:]
		if len(r.Owners) > 0 {
			o := r.Owners[0]
			last[0], last[1], last[2] = Clean(o.Process), strconv.Itoa(o.PID), string(o.How)
		}
		if r.Budget != nil {
			last[3], last[4] = strconv.Itoa(r.Budget.Used), strconv.Itoa(r.Budget.Ports)
		}
		if r.Closes != nil {
			last[5] = strconv.Itoa(closesOf(r.Closes))
		}
		_ = out.Write(row)
	}
	out.Flush()
	return out.Error()
}

// statesOf are the states that occur in a table.
func statesOf(t sockets.Table) (states []tcp.State) {
	all := t.States()
	for s, n := range all {
		if n > 0 {
			states = append(states, tcp.State(s))
		}
	}
	return states
}

func closesOf(h *snapshot.CloseHistory) int {
	n := 0
	for _, c := range h.PerSecond {
		n += int(c)
	}
	return n
}

// tableBars is how many bars the last minute has in a table.
const tableBars = 20

// Text writes the table for a person.
func (d Sockets) Text(w io.Writer, style Style) error {
	t := d.Table
	var b strings.Builder
	columns := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		for i, cell := range cells {
			cells[i] = strings.TrimRight(clean(cell, style.ASCII), " ")
		}
		fmt.Fprintln(columns, strings.Join(cells, "\t"))
	}
	if t.By == sockets.ByGroup {
		line("ROLE", "CONNECTIONS", "NETNS", "SOCKETS", "STATES", "PORTS USED", "CLOSES/S, LAST 60 S", "OWNER")
	} else {
		line(strings.ToUpper(string(t.By)), "GROUPS", "SOCKETS", "STATES", "FULLEST PORTS", "CLOSES/S, LAST 60 S", "OWNER OF MOST")
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		common := []string{figure.Count(r.States.Total()), states(r.States), budget(r.Budget), style.closes(r.Closes), ownerCell(r.Owners)}
		if t.By == sockets.ByGroup {
			line(append([]string{string(r.Role), between(r), r.Netns}, common...)...)
		} else {
			line(append([]string{r.Key, figure.Count(r.Groups)}, common...)...)
		}
	}
	columns.Flush() // into memory
	fmt.Fprintln(&b)
	d.below(&b, style)
	for text := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(text, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// below says what the table is of, and what it lacks.
func (d Sockets) below(b *strings.Builder, style Style) {
	t := d.Table
	line := func(text string) { fmt.Fprintln(b, clean(text, style.ASCII)) }
	if t.Left > 0 {
		line(fmt.Sprintf("MORE    %s with %s sockets", figure.Of(t.Left, "row", "rows"), figure.Count(t.LeftStates.Total())))
	}
	if t.Other.Groups > 0 {
		line("OTHER   " + states(t.Other.States))
	}
	for _, note := range t.Notes {
		line("NOTE    " + note)
	}
	writeGaps(b, d.Snapshot.Gaps, style)
	all := t.States()
	line(fmt.Sprintf("%s · %s · %s · %s",
		figure.Of(len(t.Rows)+t.Left, "row", "rows"), figure.Of(all.Total(), "socket", "sockets"),
		figure.Count(all.TimeWaitSockets())+" time-wait", figure.Elapsed(d.Elapsed)))
}

// writeGaps says what could not be read.
func writeGaps(b *strings.Builder, gaps []snapshot.Gap, style Style) {
	var told []string
	for _, g := range gaps {
		text := g.What
		if g.Netns != "" {
			text += " of " + g.Netns
		}
		told = append(told, "GAP     "+text+": needs "+g.Needs+" ("+firstOf(g.Cause)+")")
	}
	slices.Sort(told)
	for _, text := range slices.Compact(told) {
		fmt.Fprintln(b, clean(text, style.ASCII))
	}
}

func between(r *sockets.Row) string {
	if r.Role == tcp.Acceptor {
		return r.Local.String()
	}
	return r.Local.String() + " → " + r.Remote.String()
}

// states names the states from the most frequent on.
func states(counts tcp.States) string {
	var all []tcp.State
	for s, n := range counts {
		if n > 0 {
			all = append(all, tcp.State(s))
		}
	}
	slices.SortStableFunc(all, func(a, b tcp.State) int { return counts[b] - counts[a] })
	parts := make([]string, len(all))
	for i, s := range all {
		parts[i] = figure.Count(counts[s]) + " " + s.String()
	}
	return strings.Join(parts, ", ")
}

func budget(b *capacity.Budget) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("%s of %s (%s)", figure.Count(b.Used), figure.Count(b.Ports), figure.Percent(b.UsedPercent))
}

// closes draws the last minute, the latest at the right, and tells the rate of the
// last seconds.
func (s Style) closes(h *snapshot.CloseHistory) string {
	if h == nil {
		return "-"
	}
	const perBar = snapshot.HistorySeconds / tableBars
	bars := make([]float64, tableBars)
	for i, n := range h.PerSecond {
		bars[tableBars-1-i/perBar] += float64(n) / perBar
	}
	now := capacity.HistoryOf(h.PerSecond, h.Past, closesOf(h)+int(h.Past)).Now(capacity.TimeWaitSeconds)
	rate := figure.Number(now)
	if h.LowerBound {
		rate = "at least " + rate
	}
	return s.sparkline(bars) + " " + rate
}

func ownerCell(all []snapshot.Owner) string {
	if len(all) == 0 {
		return "unknown"
	}
	return owners(all) + inferred(all)
}
