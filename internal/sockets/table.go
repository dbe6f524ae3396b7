package sockets

import (
	"cmp"
	"fmt"
	"slices"

	"linger/internal/capacity"
	"linger/internal/diagnose"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Table is what a query finds in a snapshot.
type Table struct {
	By   By
	Rows []Row
	// Left is how many rows Query.Top left out, with the sockets of these.
	Left       int
	LeftStates tcp.States
	// Other are the groups that the snapshot folded: no query can choose among them.
	Other snapshot.Other
	// Notes say what the table cannot tell.
	Notes []string
}

// Row is one group, or what is gathered of several.
type Row struct {
	// Key is what its groups share: a destination, a service, a process, a state; it is
	// empty for a group, and where that is unknown.
	Key string
	// Netns is empty where groups of several namespaces are gathered, Role where their
	// roles differ; Local and Remote are of a single group alone.
	Netns         string
	Role          tcp.Role
	Local, Remote tcp.Endpoint
	Groups        int
	// States are those chosen.
	States tcp.States
	// Owners of the group with the most sockets.
	Owners []snapshot.Owner
	// Budget is the fullest of its groups', nil where none has one.
	Budget *capacity.Budget
	// Closes is the sum, in every state chosen or not; nil where no socket is in
	// TIME_WAIT.
	Closes *snapshot.CloseHistory

	most int // sockets of the largest group
}

// NewTable looks a query up in a snapshot.
func NewTable(s *snapshot.Snapshot, q Query) Table {
	t := Table{By: q.By}
	rows := map[string]*Row{}
	var byClient, undecidable int
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		budgets := diagnose.NewBudgets(ns)
		if o := ns.Other; o != nil {
			t.Other.Groups += o.Groups
			t.Other.States.Add(o.States)
		}
		for n := range ns.Groups {
			g := &ns.Groups[n]
			switch q.choose(g) {
			case refused:
				continue
			case undecided:
				undecidable++
				continue
			case chosenByClient:
				byClient++
			}
			t.add(rows, ns, g, budgets, q)
		}
	}
	if byClient > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("services that count all of their clients, of which --remote chose some: %d; "+
			"--list shows those alone", byClient))
	}
	if undecidable > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("services left out, for they have more clients than were kept: %d; "+
			"--list looks at each socket", undecidable))
	}
	if t.Other.Groups > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("small groups that were folded, whatever was asked for: %d, with %d sockets; "+
			"--list looks at each socket",
			t.Other.Groups, t.Other.States.Total()))
	}
	for _, row := range rows {
		t.Rows = append(t.Rows, *row)
	}
	t.order(q)
	return t
}

// add puts a group into its row, or into one for each of its states.
func (t *Table) add(rows map[string]*Row, ns *snapshot.Namespace, g *snapshot.Group, budgets diagnose.Budgets, q Query) {
	states := q.count(g.States)
	if q.By == ByGroup {
		row := &Row{}
		row.join(ns, g, states, budgets)
		t.Rows = append(t.Rows, *row)
		return
	}
	if q.By != ByState {
		gather(rows, keyOf(ns, g, q.By)).join(ns, g, states, budgets)
		return
	}
	for s, n := range states {
		if n > 0 {
			var one tcp.States
			one[s] = n
			gather(rows, tcp.State(s).String()).join(ns, g, one, budgets)
		}
	}
}

func gather(rows map[string]*Row, key string) *Row {
	if rows[key] == nil {
		rows[key] = &Row{Key: key}
	}
	return rows[key]
}

// Keys of groups that have no such thing.
const (
	accepted     = "accepted" // a service's clients are no one destination
	unknownOwner = "unknown"
)

func keyOf(ns *snapshot.Namespace, g *snapshot.Group, by By) string {
	switch by {
	case ByDestination:
		if g.Role == tcp.Acceptor {
			return accepted
		}
		return g.Remote.String()
	case ByService:
		if g.Role == tcp.Acceptor {
			return g.Local.String()
		}
		return g.Remote.String()
	case ByProcess:
		if len(g.Owners) == 0 {
			return unknownOwner
		}
		return fmt.Sprintf("%s (pid %d)", g.Owners[0].Process, g.Owners[0].PID)
	default:
		return ns.Label.String()
	}
}

// join adds a group to the row, of which so many sockets are chosen.
func (r *Row) join(ns *snapshot.Namespace, g *snapshot.Group, states tcp.States, budgets diagnose.Budgets) {
	r.Groups++
	netns := ns.Label.String()
	if r.Groups == 1 {
		r.Netns, r.Role, r.Local, r.Remote = netns, g.Role, g.Local, g.Remote
	} else {
		r.Local, r.Remote = tcp.Endpoint{}, tcp.Endpoint{}
		if r.Netns != netns {
			r.Netns = ""
		}
		if r.Role != g.Role {
			r.Role = ""
		}
	}
	r.States.Add(states)
	if n := states.Total(); n > r.most {
		r.most, r.Owners = n, g.Owners
	}
	if budget, known := budgets.Of(g); known && (r.Budget == nil || budget.Fill() > r.Budget.Fill()) {
		r.Budget = &budget
	}
	if g.Closes == nil {
		return
	}
	if r.Closes == nil {
		r.Closes = new(snapshot.CloseHistory)
	}
	for i, n := range g.Closes.PerSecond {
		r.Closes.PerSecond[i] += n
	}
	r.Closes.Past += g.Closes.Past
	r.Closes.LowerBound = r.Closes.LowerBound || g.Closes.LowerBound
}

// fill is how full the budget is, in percent; less than nothing without one.
func (r *Row) fill() float64 {
	if r.Budget == nil {
		return -1
	}
	return r.Budget.Fill()
}

// recent are the closes of the last seconds.
func (r *Row) recent() (n uint32) {
	if r.Closes != nil {
		for _, c := range r.Closes.PerSecond[:capacity.RecentSeconds] {
			n += c
		}
	}
	return n
}

func (t *Table) order(q Query) {
	slices.SortFunc(t.Rows, func(a, b Row) int {
		first := 0
		switch q.Order {
		case ByTimeWait:
			first = cmp.Compare(b.States.TimeWaitSockets(), a.States.TimeWaitSockets())
		case ByBudget:
			first = cmp.Compare(b.fill(), a.fill())
		case ByCloses:
			first = cmp.Compare(b.recent(), a.recent())
		}
		return cmp.Or(first, cmp.Compare(b.States.Total(), a.States.Total()), cmp.Compare(a.Netns, b.Netns),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Local.String(), b.Local.String()), cmp.Compare(a.Remote.String(), b.Remote.String()))
	})
	if q.Top > 0 && len(t.Rows) > q.Top {
		for _, row := range t.Rows[q.Top:] {
			t.LeftStates.Add(row.States)
		}
		t.Left = len(t.Rows) - q.Top
		t.Rows = t.Rows[:q.Top]
	}
}

// States are the sockets of the rows, those that Top left out too.
func (t *Table) States() tcp.States {
	states := t.LeftStates
	for _, row := range t.Rows {
		states.Add(row.States)
	}
	return states
}

// Closes is how many closes the last minute has.
func Closes(h *snapshot.CloseHistory) int {
	n := 0
	for _, c := range h.PerSecond {
		n += int(c)
	}
	return n
}
