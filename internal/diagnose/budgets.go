package diagnose

import (
	"cmp"
	"net/netip"
	"time"

	"linger/internal/capacity"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// The sysctls that decide over a connector's ports.
const (
	keyRange      = setting.LocalPortRange
	keyReserved   = setting.LocalReservedPorts
	keyReuse      = setting.TWReuse
	keyReuseDelay = setting.TWReuseDelay
	keyTimestamps = setting.Timestamps
	keyBuckets    = setting.MaxTWBuckets
	keyFinTimeout = setting.FinTimeout
)

// Budgets accounts for the source ports of the connectors of one namespace.
type Budgets struct {
	// Missing are the sysctls that could not be read; without them there are no
	// budgets.
	Missing []string

	portRange  tcp.PortRange
	taken      tcp.PortSet
	count      int   // of source ports that connect() can choose from
	mode       int64 // the value of tcp_tw_reuse
	delay      time.Duration
	haveStamps bool // time stamps are on
	// stamped: the time stamps that connections lack now are reckoned to come.
	stamped bool
	bound   int // ports of the range that bound TIME_WAIT sockets hold
}

// NewBudgets takes the facts that all budgets of a namespace share.
func NewBudgets(ns *snapshot.Namespace) Budgets {
	var b Budgets
	have := func(key string, ok bool) {
		if !ok {
			b.Missing = append(b.Missing, key)
		}
	}
	portRange, ok := ns.Settings.PortRange()
	have(keyRange, ok)
	reserved, ok := ns.Settings.ReservedPorts()
	have(keyReserved, ok)
	reuse, ok := ns.Settings.Int(keyReuse)
	have(keyReuse, ok)
	timestamps, ok := ns.Settings.Int(keyTimestamps)
	have(keyTimestamps, ok)
	if b.Missing != nil {
		return b
	}

	listening := make([]uint16, len(ns.Listeners))
	for i, l := range ns.Listeners {
		listening[i] = l.Local.Port
	}
	b.portRange, b.mode, b.haveStamps = portRange, reuse, timestamps != 0
	b.taken = reserved.Union(ns.BoundPorts).Union(tcp.PortSetOf(listening...))
	b.count = capacity.Ports(portRange, b.taken)
	b.delay = capacity.DefaultReuseDelay
	if ms, ok := ns.Settings.Int(keyReuseDelay); ok {
		b.delay = time.Duration(ms) * time.Millisecond
	}
	if ns.BoundTimeWait != nil {
		b.bound = *ns.BoundTimeWait
	}
	return b
}

// Of is the budget of a group. It is not known (false) where settings are missing,
// and only a connector has one: an acceptor's connections share its port.
func (b Budgets) Of(g *snapshot.Group) (capacity.Budget, bool) {
	if b.Missing != nil || g.Role != tcp.Connector {
		return capacity.Budget{}, false
	}
	ports := b.count
	if g.Takeover != nil { // what other programs bound is lost to this one
		ports = max(0, ports-max(0, b.bound-g.Takeover.Bound))
	}
	return capacity.NewBudget(ports, b.demand(g)), true
}

// Ports is how many source ports connect() can choose from, and of which range.
func (b Budgets) Ports() (int, tcp.PortRange) { return b.count, b.portRange }

// WithRange are the budgets with another port range, and with more ports reserved.
func (b Budgets) WithRange(r tcp.PortRange, reserved tcp.PortSet) Budgets {
	b.portRange, b.taken = r, b.taken.Union(reserved)
	b.count = capacity.Ports(r, b.taken)
	return b
}

// WithReuse are the budgets with tcp_tw_reuse at 1 and time stamps.
func (b Budgets) WithReuse() Budgets {
	b.mode, b.haveStamps, b.stamped = 1, true, !b.haveStamps
	return b
}

// WithDefaultDelay are the budgets with tcp_tw_reuse_delay at its default.
func (b Budgets) WithDefaultDelay() Budgets {
	b.delay = capacity.DefaultReuseDelay
	return b
}

// Timestamps tells whether connections are made with time stamps.
func (b Budgets) Timestamps() bool { return b.haveStamps }

// Reuse is whether and when connect() may take over the TIME_WAIT sockets between
// two addresses (net/ipv4/tcp_ipv4.c, tcp_twsk_unique). That both ends used time
// stamps is taken for granted where this one does: sock_diag does not tell.
func (b Budgets) Reuse(local, remote netip.Addr) capacity.Reuse {
	loopback := local.IsLoopback() || remote.IsLoopback()
	return capacity.Reuse{
		Allowed: b.haveStamps && (b.mode == 1 || b.mode == 2 && loopback),
		Delay:   b.delay,
	}
}

func (b Budgets) demand(g *snapshot.Group) capacity.Demand {
	d := capacity.Demand{
		Live:     g.InRange.Live(),
		FinWait2: g.InRange[tcp.FinWait2TimeWait],
		TimeWait: g.InRange[tcp.TimeWait],
		Reuse:    b.Reuse(g.Local.Addr, g.Remote.Addr),
	}
	if g.Closes != nil {
		d.Closes = capacity.HistoryOf(g.Closes.PerSecond, g.Closes.Past, d.TimeWait)
	}
	if g.Takeover != nil {
		d.Exact = b.exact(g)
	}
	return d
}

func (b Budgets) exact(g *snapshot.Group) *capacity.Exact {
	t := g.Takeover
	e := &capacity.Exact{Ripe: t.Ripe}
	if b.delay == capacity.DefaultReuseDelay {
		e.Ripe = t.RipeByDefault
	}
	kept := t.Never()
	if b.stamped {
		kept = t.Bound
	}
	if h := cmp.Or(t.Kept, g.Closes); h != nil && kept > 0 {
		e.Kept = capacity.HistoryOf(h.PerSecond, h.Past, kept)
	}
	return e
}
