package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TWReuse: a setting keeps connect() from taking over TIME_WAIT sockets.
const TWReuse Slug = "tw-reuse"

var twReuseRule = Rule{
	Slug:       TWReuse,
	Title:      "a setting keeps connect() from taking over ports in TIME_WAIT",
	Needs:      "sockets with their remaining time, ip_local_port_range, tcp_tw_reuse, tcp_tw_reuse_delay, tcp_timestamps",
	Setting:    true,
	Thresholds: []Threshold{reuseUse},
	CausedBy:   []Slug{ClientClosesFirst},
	Remedies:   []RemedyID{KeepConnections, TimestampsOn, ReuseOn, ReuseDelayDefault},
	judge:      judgeTWReuse,
}

var reuseUse = Threshold{
	Name: "tw-reuse.warning-percent", Default: 30, Unit: percentUnit,
	Reason: "of the ports: below it a change of the setting would gain nothing that is missed",
}

func judgeTWReuse(sc *scene) (v verdict) {
	s := survey{
		none:   "no TIME_WAIT holds a source port",
		judge:  sc.stuckPorts,
		report: sc.stuck,
		fullest: func(p *place, g *snapshot.Group) string {
			return fmt.Sprintf("TIME_WAIT that cannot be taken over fills at most %s of a budget (%s in %s)",
				figure.Percent(p.freeableShare(g)), way(g.Local, g.Remote), p.netns.Label)
		},
	}
	for _, p := range sc.accountable(&v) {
		s.walk(p, &v)
	}
	v.absent = s.absent()
	return v
}

// stuckPorts is how much of its budget the TIME_WAIT of a group holds that settings could
// free, in percent.
func (sc *scene) stuckPorts(p *place, g *snapshot.Group, _ *verdict) (standing, float64) {
	b, ok := p.budgets.Of(g)
	if !ok || b.Occupied() == 0 {
		return apart, 0
	}
	fill := p.freeableShare(g)
	if fill >= sc.threshold(reuseUse) && p.obstacles(g) != nil {
		return problem, fill
	}
	return below, fill
}

// freeableShare is how many percent of its ports settings could free for a group.
func (p *place) freeableShare(g *snapshot.Group) float64 {
	b, _ := p.budgets.Of(g)
	return share(float64(p.freeable(g, b)), float64(b.Ports))
}

// freeable is how many of the ports that TIME_WAIT holds settings could free: those
// that connect() never takes over are told where each socket was asked.
func (p *place) freeable(g *snapshot.Group, b capacity.Budget) int {
	t := g.Takeover
	switch {
	case t == nil:
		return b.Occupied()
	case !p.budgets.haveStamps: // they lack time stamps for that very reason
		return max(0, b.Occupied()-t.Bound)
	default:
		return max(0, b.Occupied()-t.Never())
	}
}

// takeover tells of the TIME_WAIT sockets of a group one by one: what tcp_tw_reuse at 1
// would free now, and what keeps the rest.
func (p *place) takeover(g *snapshot.Group) (Evidence, bool) {
	t := g.Takeover
	if t == nil {
		return Evidence{}, false
	}
	return Evidence{
		ID: "free-with-reuse", Name: "free now with tcp_tw_reuse=1", Value: float64(t.Ripe), Limit: new(float64(t.Sockets())), Unit: "ports",
		Source: fmt.Sprintf("exact, each socket asked by a BPF iterator: %s bound, %s without time stamps, %s younger than %d ms",
			figure.Count(t.Bound), figure.Count(t.NoTimestamps), figure.Count(t.Young), p.budgets.delay.Milliseconds()),
		Check: "linger -o json | jq '.namespaces[].groups[] | select(.takeover) | {local, remote, takeover}'",
	}, true
}

// doubtTakeover says that what can be taken over was not told of each socket.
func (f *draft) doubtTakeover(g *snapshot.Group) {
	if g.Takeover == nil {
		f.doubt("which ports can be taken over is estimated by their ages: " +
			"whether the peer used time stamps, and whether bind() owns a port, takes a BPF iterator")
	}
}

// obstacles are the remedies for the settings that keep connect() from taking over
// the TIME_WAIT sockets of a group, the first of them the reason that is told; none
// where no setting does.
func (p *place) obstacles(g *snapshot.Group) []RemedyID {
	var list []RemedyID
	if budget, ok := p.budgets.Of(g); ok && g.Takeover != nil && p.freeable(g, budget) == 0 {
		return nil // no setting frees any
	}
	b := p.budgets
	if !b.haveStamps {
		list = append(list, TimestampsOn)
		b.haveStamps = true
	}
	reuse := b.Reuse(g.Local.Addr, g.Remote.Addr)
	if !reuse.Allowed {
		list = append(list, ReuseOn)
	}
	if reuse.Delay > capacity.DefaultReuseDelay {
		list = append(list, ReuseDelayDefault)
	}
	return list
}

func (sc *scene) stuck(p *place, g *snapshot.Group, _ *verdict) draft {
	f := p.about(g)
	b, _ := p.budgets.Of(g)
	obstacles := p.obstacles(g)
	f.sockets = b.Occupied()
	f.Severity = Warning
	var setting, why string
	key := keyReuse
	switch obstacle := obstacles[0]; {
	case obstacle == TimestampsOn:
		key, setting = keyTimestamps, "tcp_timestamps is off"
		why = "connect() takes a TIME_WAIT socket over only where both ends used time stamps: they tell old segments from new ones."
	case obstacle == ReuseDelayDefault:
		key, setting = keyReuseDelay, fmt.Sprintf("tcp_tw_reuse_delay is %d ms", p.budgets.delay.Milliseconds())
		why = "connect() takes a TIME_WAIT socket over only when it is older than tcp_tw_reuse_delay, whose default is 1000 ms."
	case p.budgets.mode == 2:
		setting = "tcp_tw_reuse is 2, which means loopback only"
		why = "With tcp_tw_reuse at 2, the default since 4.18, connect() takes TIME_WAIT sockets over on loopback addresses alone; " +
			way(g.Local, g.Remote) + " is none of them, even if the host talks to itself."
	default:
		setting = fmt.Sprintf("tcp_tw_reuse is %d", p.budgets.mode)
		why = "With tcp_tw_reuse at 0, connect() waits for the full 60 s of each TIME_WAIT socket."
	}
	f.of = way(g.Local, g.Remote) + ": "
	f.Summary = fmt.Sprintf("%s of %s source ports are in TIME_WAIT and cannot be taken over: %s",
		figure.Count(p.freeable(g, b)), figure.Count(b.Ports), setting)
	if rest := b.Occupied() - p.freeable(g, b); rest > 0 {
		f.Summary += "; " + figure.Count(rest) + " more are bound or lack time stamps, and no setting frees them"
	}
	f.Why = why
	value, _ := p.Settings.Int(key)
	f.Evidence = []Evidence{
		{
			ID: "ports-in-time-wait", Name: "ports in TIME_WAIT", Value: float64(b.Occupied()), Limit: new(float64(b.Ports)), Unit: "ports",
			Source: "sock_diag: TIME_WAIT sockets that connect() may not take over", Check: p.countInState(g, "time-wait"),
		},
		{ID: "setting", Name: key[len("net.ipv4."):], Value: float64(value), Source: "/proc/sys", Check: p.sysctl(key)},
	}
	f.RuledOut = sc.acquit(p, g, "")
	f.doubtOwners(g)
	if e, told := p.takeover(g); told {
		f.Evidence = append(f.Evidence, e)
	}
	f.doubtTakeover(g)
	f.Remedies = append([]RemedyID{KeepConnections}, obstacles...)
	f.WillNotHelp = []Folklore{noFinTimeout, noRecycle, noFewerBuckets, noTimestamps}
	if g.InRange[tcp.FinWait2TimeWait] > 0 {
		f.WillNotHelp = append(f.WillNotHelp, noReuseInFinWait2)
	}
	return f
}
