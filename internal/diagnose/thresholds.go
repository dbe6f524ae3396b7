package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Threshold is a number from which on something is a problem. It is declared in the
// file of its rule.
type Threshold struct {
	// Name is the slug of the problem, a dot, and what is counted: part of the public
	// contract.
	Name    string
	Default float64
	Unit    string
	// Reason says what the default is of, and why it is that.
	Reason string
}

// percentUnit is the unit of thresholds that cannot pass 100.
const percentUnit = "%"

// Thresholds are the values of all thresholds. In the zero value each is its default.
type Thresholds struct {
	changed map[string]float64 // by name
}

// DefaultThresholds are those that nobody has changed.
func DefaultThresholds() Thresholds { return Thresholds{} }

// firstListed are the problems whose thresholds are listed first, in this order: those
// of ports, of the kernel's tables, of programs. Others follow in the order of the rules.
var firstListed = []Slug{
	PortExhaustion, BindBeforeConnect, ConnectionChurn, ClientClosesFirst, TWReuse,
	TimeWaitOverflow, ConntrackFull, NATPortExhaustion,
	CloseWaitLeak, AcceptQueueOverflow, FinWait2PileUp, OrphanPileUp,
}

// ThresholdTable lists all thresholds.
func ThresholdTable() []Threshold {
	rules := Rules()
	place := func(r Rule) int {
		if at := slices.Index(firstListed, r.Slug); at >= 0 {
			return at
		}
		return len(firstListed)
	}
	slices.SortStableFunc(rules, func(a, b Rule) int { return cmp.Compare(place(a), place(b)) })
	var all []Threshold
	for _, r := range rules {
		all = append(all, r.Thresholds...)
	}
	return all
}

// Set changes the threshold of that name. An unknown name is an error that lists
// the names; so is a number that is not above 0, or a percentage above 100.
func (t *Thresholds) Set(name string, value float64) error {
	table := ThresholdTable()
	names := make([]string, len(table))
	for i, row := range table {
		if row.Name == name {
			switch {
			case !(value > 0): // NaN too
				return fmt.Errorf("threshold %s: %v is not above 0", name, value)
			case row.Unit == percentUnit && value > 100:
				return fmt.Errorf("threshold %s: %v is above 100 %%", name, value)
			}
			changed := map[string]float64{}
			maps.Copy(changed, t.changed) // so that who has a copy of t keeps it as it is
			changed[name] = value
			t.changed = changed
			return nil
		}
		names[i] = row.Name
	}
	return fmt.Errorf("threshold %q is unknown; there are %s", name, strings.Join(names, ", "))
}

// Of is the value of a threshold.
func (t Thresholds) Of(x Threshold) float64 {
	if value, changed := t.changed[x.Name]; changed {
		return value
	}
	return x.Default
}
