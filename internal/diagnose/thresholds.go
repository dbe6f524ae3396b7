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
	acceptQueue                              float64
	finWait2Sockets                          float64
	orphanSockets, orphansCritical           float64
	resetRate, resetShare, silentPeers       float64
	refusedSYNs                              float64
	tableWarning, tableCritical, natFailures float64
	boundPorts, boundUse                     float64
	softnetDrops, prunes, pressure           float64
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
		"bind-before-connect.ports", 50, "ports",
		"of one source address to one service, of the parity that connect() avoids: fewer may be chance",
		func(t *Thresholds) *float64 { return &t.boundPorts },
	},
	{
		"bind-before-connect.warning-percent", 30, percentUnit,
		"of the ports, over all destinations: below it the load may triple before bind() fails",
		func(t *Thresholds) *float64 { return &t.boundUse },
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
		"conntrack-full.warning-percent", 75, percentUnit,
		"of nf_conntrack_max: a third more connections and packets are dropped",
		func(t *Thresholds) *float64 { return &t.tableWarning },
	},
	{
		"conntrack-full.critical-percent", 90, percentUnit,
		"of nf_conntrack_max: a ninth more connections, an ordinary peak, and packets are dropped",
		func(t *Thresholds) *float64 { return &t.tableCritical },
	},
	{
		"nat-port-exhaustion.failures-per-second", 1, "connections/s",
		"that make no entry while addresses are translated: each is a connect that times out, and there should be none",
		func(t *Thresholds) *float64 { return &t.natFailures },
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
	{
		"accept-queue-overflow.queue-percent", 100, percentUnit,
		"of the backlog and one more, which is what the kernel queues: from there it refuses; a queue that is only deep is emptied by the next accept()",
		func(t *Thresholds) *float64 { return &t.acceptQueue },
	},
	{
		"fin-wait2-pileup.sockets", 100, "sockets",
		"with one remote address, and as many of the group 3 s old at least: a peer that closes in its own time leaves a few for milliseconds, a busy one some more",
		func(t *Thresholds) *float64 { return &t.finWait2Sockets },
	},
	{
		"orphan-pileup.sockets", 100, "sockets",
		"of one group in FIN_WAIT1, CLOSING and LAST_ACK: with a peer that answers they last one round trip",
		func(t *Thresholds) *float64 { return &t.orphanSockets },
	},
	{
		"orphan-pileup.critical-percent", 45, percentUnit,
		"of tcp_max_orphans: the kernel may count an orphan double or fourfold (tcp_out_of_resources), and begins to reset from half of the limit",
		func(t *Thresholds) *float64 { return &t.orphansCritical },
	},
	{
		"vanished-connections.resets-per-second", 5, "resets/s",
		"of established connections: below it they are the accidents of any network",
		func(t *Thresholds) *float64 { return &t.resetRate },
	},
	{
		"vanished-connections.resets-percent", 5, percentUnit,
		"of the connections opened meanwhile: on a busy host five a second may be a handful of impatient clients",
		func(t *Thresholds) *float64 { return &t.resetShare },
	},
	{
		"vanished-connections.silent-peers", 20, "sockets",
		"of one group that are established and unanswered: a few are laptops that were closed",
		func(t *Thresholds) *float64 { return &t.silentPeers },
	},
	{
		"syn-on-time-wait.refused-per-second", 1, "segments/s",
		"refused by TIME_WAIT sockets: each is a connect that stalls, and there should be none",
		func(t *Thresholds) *float64 { return &t.refusedSYNs },
	},
	{
		"resource-pressure.drops-per-second", 10, "packets/s",
		"dropped before a CPU took them: a single burst on one interface may drop a few",
		func(t *Thresholds) *float64 { return &t.softnetDrops },
	},
	{
		"resource-pressure.prunes-per-second", 10, "times/s",
		"that receive buffers overflow: one stuck program makes one or two as its peers probe it",
		func(t *Thresholds) *float64 { return &t.prunes },
	},
	{
		"resource-pressure.stall-percent", 60, percentUnit,
		"of the time in which tasks waited for a resource, over 10 s: only worth knowing, as long as the stack shows no sign",
		func(t *Thresholds) *float64 { return &t.pressure },
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
