package diagnose

import (
	"fmt"
	"slices"
	"strings"
)

// Thresholds are the numbers from which on something is a problem. The zero value
// is of no use: begin with DefaultThresholds.
type Thresholds struct {
	portWarning, portCritical                float64
	acceptorRate, acceptorShare, acceptorUse float64
	connectorRate, connectorShare            float64
	connectorUse                             float64
	reuseUse                                 float64
	bucketsWarning, bucketsCritical          float64
	closeWaitSockets, descriptorsCritical    float64
}

// Threshold describes one of them.
type Threshold struct {
	Name    string  `json:"name"`
	Default float64 `json:"default"`
	Unit    string  `json:"unit"`
	Reason  string  `json:"reason"`

	field func(*Thresholds) *float64
}

// percentUnit is the unit of thresholds that cannot pass 100.
const percentUnit = "%"

var thresholdTable = []Threshold{
	{
		"port-exhaustion.warning-percent", 60, percentUnit,
		"from here connect() begins to search long (its cost grows with the ports in use), and less than one doubling of the load is left",
		func(t *Thresholds) *float64 { return &t.portWarning },
	},
	{
		"port-exhaustion.critical-percent", 99, percentUnit,
		"a range that is used up never shows quite 100 %: while the sockets are read some ports come back, and are taken again at once",
		func(t *Thresholds) *float64 { return &t.portCritical },
	},
	{
		"connection-churn.closes-per-second", 20, "closes/s",
		"over the last minute; below it TIME_WAIT stays under 1,200 sockets, which is 0.3 MB",
		func(t *Thresholds) *float64 { return &t.acceptorRate },
	},
	{
		"connection-churn.time-wait-percent", 50, percentUnit,
		"of the group's sockets: where fewer are in TIME_WAIT, connections live longer than their remains and are not churn",
		func(t *Thresholds) *float64 { return &t.acceptorShare },
	},
	{
		"connection-churn.warning-percent", 30, percentUnit,
		"of tcp_max_tw_buckets, now or predicted: below it the load may triple before anything is near",
		func(t *Thresholds) *float64 { return &t.acceptorUse },
	},
	{
		"client-closes-first.closes-per-second", 20, "closes/s",
		"over the last minute; below it TIME_WAIT takes less than 1,200 ports, 4 % of the default range",
		func(t *Thresholds) *float64 { return &t.connectorRate },
	},
	{
		"client-closes-first.time-wait-percent", 50, percentUnit,
		"of the group's sockets: where fewer are in TIME_WAIT, live connections take the ports",
		func(t *Thresholds) *float64 { return &t.connectorShare },
	},
	{
		"client-closes-first.warning-percent", 30, percentUnit,
		"of the ports or of tcp_max_tw_buckets, now or predicted: below it the load may triple before anything is near",
		func(t *Thresholds) *float64 { return &t.connectorUse },
	},
	{
		"tw-reuse.warning-percent", 30, percentUnit,
		"of the ports: below it a change of the setting would gain nothing that is missed",
		func(t *Thresholds) *float64 { return &t.reuseUse },
	},
	{
		"time-wait-overflow.warning-percent", 75, percentUnit,
		"of tcp_max_tw_buckets: a third more closes and the limit is met",
		func(t *Thresholds) *float64 { return &t.bucketsWarning },
	},
	{
		"time-wait-overflow.critical-percent", 90, percentUnit,
		"of tcp_max_tw_buckets: a ninth more closes, an ordinary peak, and sockets are dropped without their TIME_WAIT",
		func(t *Thresholds) *float64 { return &t.bucketsCritical },
	},
	{
		"close-wait-leak.sockets", 100, "sockets",
		"of one owner and service, each 3 s old at least: a busy program has some in CLOSE_WAIT for milliseconds, not a hundred for seconds",
		func(t *Thresholds) *float64 { return &t.closeWaitSockets },
	},
	{
		"close-wait-leak.critical-percent", 90, percentUnit,
		"of the owner's RLIMIT_NOFILE: when it is met, accept(), socket() and open() fail with EMFILE",
		func(t *Thresholds) *float64 { return &t.descriptorsCritical },
	},
}

// ThresholdTable lists all thresholds with their defaults and reasons.
func ThresholdTable() []Threshold { return slices.Clone(thresholdTable) }

// DefaultThresholds are those of the table.
func DefaultThresholds() Thresholds {
	var t Thresholds
	for _, row := range thresholdTable {
		*row.field(&t) = row.Default
	}
	return t
}

// Set changes the threshold of that name. An unknown name is an error that lists
// the names; so is a number that is not above 0, or a percentage above 100.
func (t *Thresholds) Set(name string, value float64) error {
	names := make([]string, len(thresholdTable))
	for i, row := range thresholdTable {
		if row.Name == name {
			switch {
			case !(value > 0): // NaN too
				return fmt.Errorf("threshold %s: %v is not above 0", name, value)
			case row.Unit == percentUnit && value > 100:
				return fmt.Errorf("threshold %s: %v is above 100 %%", name, value)
			}
			*row.field(t) = value
			return nil
		}
		names[i] = row.Name
	}
	return fmt.Errorf("threshold %q is unknown; there are %s", name, strings.Join(names, ", "))
}

// Get is the threshold of that name, and whether there is one.
func (t Thresholds) Get(name string) (float64, bool) {
	for _, row := range thresholdTable {
		if row.Name == name {
			return *row.field(&t), true
		}
	}
	return 0, false
}
