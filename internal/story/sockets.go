package story

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/sockets"
	"linger/internal/tcp"
)

// Groups is a table of groups, and what it was read from.
type Groups struct {
	Snapshot *snapshot.Snapshot
	Table    sockets.Table
	Elapsed  time.Duration
}

// tableBars is how many bars the last minute has in a table.
const tableBars = 20

// Sockets tells a table of groups.
func Sockets(g *Groups) *Table {
	from := &g.Table
	t := &Table{
		Columns: words(strings.ToUpper(string(from.By)), "GROUPS", "SOCKETS", "STATES", "FULLEST PORTS", "CLOSES/S, LAST 60 S", "OWNER OF MOST"),
	}
	if from.By == sockets.ByGroup {
		t.Columns = words("ROLE", "CONNECTIONS", "NETNS", "SOCKETS", "STATES", "PORTS USED", "CLOSES/S, LAST 60 S", "OWNER")
	}
	for i := range from.Rows {
		r := &from.Rows[i]
		row := cells(r.Key, figure.Count(r.Groups))
		if from.By == sockets.ByGroup {
			row = cells(string(r.Role), between(r), r.Netns)
		}
		row = append(row, cells(figure.Count(r.States.Total()), states(r.States), budget(r.Budget))...)
		t.Rows = append(t.Rows, append(row, closes(r.Closes), Cell{Text: Clean(ownerCell(r.Owners))}))
	}
	say := func(name, text string) { t.Foot = append(t.Foot, Item{Name: Clean(name), Text: Clean(text)}) }
	if from.Left > 0 {
		say("MORE", fmt.Sprintf("%s with %s sockets", figure.Of(from.Left, "row", "rows"), figure.Count(from.LeftStates.Total())))
	}
	if from.Other.Groups > 0 {
		say("OTHER", states(from.Other.States))
	}
	for _, note := range from.Notes {
		say("NOTE", note)
	}
	t.Foot = append(t.Foot, notRead(g.Snapshot.Gaps)...)
	all := from.States()
	say("", fmt.Sprintf("%s · %s · %s · %s",
		figure.Of(len(from.Rows)+from.Left, "row", "rows"), figure.Of(all.Total(), "socket", "sockets"),
		figure.Count(all.TimeWaitSockets())+" time-wait", figure.Elapsed(g.Elapsed)))
	return t
}

// SocketColumns name the cells of SocketRow.
var SocketColumns = []string{"STATE", "LOCAL", "REMOTE", "OWNER", "RECV-Q", "SEND-Q", "TIMER", "COOKIE", "NETNS"}

// SocketRow tells one socket.
func SocketRow(s *snapshot.Socket) []Text {
	process, timer := "-", "-"
	if s.Owner != nil {
		process = fmt.Sprintf("%s (%d)", s.Owner.Process, s.Owner.PID)
		if s.Shared > 0 {
			process += fmt.Sprintf(" +%d", s.Shared)
		}
	}
	if s.Timer != "" {
		timer = fmt.Sprintf("%s %.1f s", s.Timer, float64(s.TimerMS)/1000)
	}
	return cleanAll([]string{
		s.State, s.Local.String(), s.Remote.String(), process, fmt.Sprint(s.ReceiveQueue), fmt.Sprint(s.SendQueue), timer,
		fmt.Sprint(s.Cookie), s.Netns,
	})
}

// SocketsEnd ends a list of so many sockets.
func SocketsEnd(n int, gaps []snapshot.Gap, took time.Duration) []Item {
	return append(notRead(gaps), Item{Text: Clean(figure.Of(n, "socket", "sockets") + " · " + figure.Elapsed(took))})
}

// notRead says what could not be read.
func notRead(gaps []snapshot.Gap) []Item {
	var told []string
	for _, g := range gaps {
		told = append(told, g.What+of(g)+": needs "+g.Needs+" ("+firstOf(g.Cause)+")")
	}
	slices.Sort(told)
	var out []Item
	for _, text := range slices.Compact(told) {
		out = append(out, Item{Name: Clean("GAP"), Text: Clean(text)})
	}
	return out
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

// closes are those of the last minute, and the rate of its last seconds.
func closes(h *snapshot.CloseHistory) Cell {
	if h == nil {
		return Cell{Text: Clean("-")}
	}
	rate := figure.Number(capacity.HistoryOf(h.PerSecond, h.Past, sockets.Closes(h)+int(h.Past)).Now(capacity.TimeWaitSeconds))
	if h.LowerBound {
		rate = "at least " + rate
	}
	return Cell{Text: Clean(rate), Bars: historyOf(h, tableBars)}
}

func ownerCell(all []snapshot.Owner) string {
	if len(all) == 0 {
		return "unknown"
	}
	return owners(all) + inferred(all)
}
