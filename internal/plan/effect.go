package plan

import (
	"cmp"
	"maps"
	"slices"

	"linger/internal/diagnose"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// The names of the numbers that a plan promises to move.
const (
	sourcePorts = "source ports"
	usedPorts   = "source ports used"
	carried     = "closes/s that the ports carry for ever"
)

// measured is one number of a namespace, as it is or would be.
type measured struct {
	name, unit string
	value      float64
}

// measure adds to each change the numbers before and after it, the changes before it
// in the same namespace being made, and the counters that the guard begins with.
func (m *maker) measure() {
	worlds := map[*snapshot.Namespace]*snapshot.Namespace{}
	for i := range m.plan.Changes {
		c := &m.plan.Changes[i]
		ns := m.snapshot.Namespace(c.Scope.Cookie, c.Scope.Inode)
		if ns == nil {
			continue
		}
		if worlds[ns] == nil {
			worlds[ns] = ns
			m.plan.Counters = append(m.plan.Counters, Counters{
				Cookie: ns.Cookie, Inode: ns.Inode, Total: guarded(ns.Counters.Total), Traced: traced(m.snapshot, ns),
			})
		}
		before := worlds[ns]
		after := *before
		after.Settings = maps.Clone(before.Settings)
		after.Settings[c.Key] = c.New
		worlds[ns] = &after
		c.Effects = effects(c, before, &after)
	}
}

// Guarded are the counters that the guard compares: connections opened, and those that
// were reset or failed (RFC 4022: tcpActiveOpens, tcpPassiveOpens, tcpEstabResets,
// tcpAttemptFails).
var Guarded = []string{"TcpActiveOpens", "TcpPassiveOpens", "TcpEstabResets", "TcpAttemptFails"}

func guarded(total map[string]uint64) map[string]uint64 {
	kept := map[string]uint64{}
	for _, name := range Guarded {
		if value, known := total[name]; known {
			kept[name] = value
		}
	}
	return kept
}

func traced(s *snapshot.Snapshot, ns *snapshot.Namespace) *Traced {
	if s.TracedMS == 0 {
		return nil
	}
	t := &Traced{MS: s.TracedMS}
	if ns.Traced != nil {
		t.Opened, t.NoPort = ns.Traced.Opens, ns.Traced.Failed["no-port"]
	}
	return t
}

func effects(c *Change, before, after *snapshot.Namespace) []Effect {
	k, err := keyOf(c.Key)
	if err != nil {
		return []Effect{}
	}
	list := []Effect{}
	if !decidesPorts(c.Key) {
		old, wasNumber := number(c.Old)
		value, isNumber := number(c.New)
		if wasNumber && isNumber && k.unit != "" {
			list = append(list, Effect{Name: c.Key, Unit: k.unit, Before: float64(old), After: float64(value), When: cmp.Or(k.when, "at once")})
		}
		return list
	}
	g := busiest(before)
	then := numbers(after, g)
	for i, was := range numbers(before, g) {
		if i < len(then) && (was.value != then[i].value) {
			list = append(list, Effect{Name: was.name, Unit: was.unit, Before: was.value, After: then[i].value, When: "at the next connect()"})
		}
	}
	return list
}

func decidesPorts(key string) bool {
	return slices.Contains([]string{KeyRange, KeyReserved, KeyReuse, KeyReuseDelay, KeyTimestamps}, key)
}

// busiest is the connector that is nearest to the end of its ports, nil where there
// is none.
func busiest(ns *snapshot.Namespace) *snapshot.Group {
	budgets := diagnose.NewBudgets(ns)
	var most *snapshot.Group
	fill := -1.0
	for i := range ns.Groups {
		if b, ok := budgets.Of(&ns.Groups[i]); ok && b.Fill() > fill {
			most, fill = &ns.Groups[i], b.Fill()
		}
	}
	return most
}

// numbers account for the source ports of a namespace, and of one connector in it.
func numbers(ns *snapshot.Namespace, g *snapshot.Group) []measured {
	budgets := diagnose.NewBudgets(ns)
	if budgets.Missing != nil {
		return nil
	}
	ports, _ := budgets.Ports()
	list := []measured{{sourcePorts, "ports", float64(ports)}}
	if g == nil {
		return list
	}
	if b, ok := budgets.Of(g); ok {
		of := ", " + g.Local.String() + " → " + g.Remote.String()
		list = append(list, measured{usedPorts + of, "ports", float64(b.Used)}, measured{carried + of, "closes/s", b.Sustainable})
	}
	return list
}

// Now are the present values of a change's effects, by name. What cannot be told, as
// of a connector that has no connection any more, is missing.
func (c *Change) Now(ns *snapshot.Namespace) map[string]float64 {
	now := map[string]float64{}
	add := func(list []measured) {
		for _, n := range list {
			now[n.name] = n.value
		}
	}
	if decidesPorts(c.Key) {
		add(numbers(ns, nil))
		for i := range ns.Groups {
			if ns.Groups[i].Role == tcp.Connector {
				add(numbers(ns, &ns.Groups[i]))
			}
		}
	} else if value, isNumber := number(ns.Settings[c.Key]); isNumber {
		now[c.Key] = float64(value)
	}
	return now
}
