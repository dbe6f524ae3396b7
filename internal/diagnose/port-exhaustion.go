package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// PortExhaustion: the source ports to one destination run out.
const PortExhaustion Slug = "port-exhaustion"

var portExhaustionRule = Rule{
	Slug:       PortExhaustion,
	Title:      "the source ports to one destination run out",
	Needs:      "sockets with their remaining time, ip_local_port_range, ip_local_reserved_ports, tcp_tw_reuse, tcp_timestamps",
	Thresholds: []Threshold{portWarning, portCritical},
	CausedBy:   []Slug{CloseWaitLeak, BindBeforeConnect, ClientClosesFirst},
	Remedies: []RemedyID{
		KeepConnections, PeerClosesFirst, CloseSockets, RestartProcess, MoreAddresses, BindAddressNoPort, WidenPortRange,
		TimestampsOn, ReuseOn, ReuseDelayDefault, LingerZero,
	},
	judge: judgePortExhaustion,
}

var (
	portWarning = Threshold{
		Name: "port-exhaustion.warning-percent", Default: 60, Unit: percentUnit,
		Reason: "from here connect() begins to search long (its cost grows with the ports in use), " +
			"and less than one doubling of the load is left",
	}
	portCritical = Threshold{
		Name: "port-exhaustion.critical-percent", Default: 99, Unit: percentUnit,
		Reason: "a range that is used up never shows quite 100 %: while the sockets are read some ports come back, and are taken again at once",
	}
)

func judgePortExhaustion(sc *scene) (v verdict) {
	most := sc.threshold(portWarning)
	s := survey{
		none:    "no connections from here take source ports",
		judge:   sc.portsOf,
		report:  sc.exhaustion,
		fullest: fullestPorts,
		other: func(p *place) bool {
			return share(float64(p.mostInOther(p.Other.States.Total())), float64(p.budgets.count)) >= most
		},
	}
	for _, p := range sc.accountable(&v) {
		if p.budgets.count == 0 {
			v.findings = append(v.findings, p.portless())
			continue
		}
		s.walk(p, &v)
	}
	v.absent = s.absent()
	return v
}

// portsOf is how full the budget of a group is, in percent.
func (sc *scene) portsOf(p *place, g *snapshot.Group, v *verdict) (standing, float64) {
	most := sc.threshold(portWarning)
	if g.Role == tcp.RoleUnknown && share(float64(g.InRange.Total()), float64(p.budgets.count)) >= most {
		return roleless, 0
	}
	b, ok := p.budgets.Of(g)
	if ok && p.neverReused(b, most) {
		v.unknown = append(v.unknown, p.lacks(LackTimestamps, fmt.Sprintf("to know whether %s uses time stamps: %s of %s source ports are "+
			"in TIME_WAIT, and although tcp_tw_reuse allows it none was ever taken over (TWRecycled is 0)",
			g.Remote, figure.Count(b.TimeWait), figure.Count(b.Ports))))
	}
	switch {
	case !ok || b.Used == 0:
		return apart, 0
	case b.Fill() >= most:
		return problem, b.Fill()
	default:
		return below, b.Fill()
	}
}

func fullestPorts(p *place, g *snapshot.Group) string {
	b, _ := p.budgets.Of(g)
	return fmt.Sprintf("the fullest, %s in %s, uses %s of %s source ports (%s now, %s predicted)", way(g.Local, g.Remote), p.netns.Label,
		figure.Count(b.Used), figure.Count(b.Ports), figure.Percent(b.UsedPercent), figure.Percent(b.PredictedPercent))
}

// neverReused tells whether a budget rests on ports that connect() may take over,
// and never has: where so many are in TIME_WAIT, it would have met one.
func (p *place) neverReused(b capacity.Budget, percent float64) bool {
	recycled, known := p.Counters.Total["TcpExtTWRecycled"]
	return known && recycled == 0 && !b.Exact && b.Reusable > 0 && b.Fill() < percent &&
		share(float64(b.Used+b.Reusable), float64(b.Ports)) >= percent
}

func (sc *scene) exhaustion(p *place, g *snapshot.Group, _ *verdict) draft {
	f := p.about(g)
	b, _ := p.budgets.Of(g)
	c := p.churn(g)
	free := max(b.Ports-b.Used, 0)
	f.of = way(g.Local, g.Remote) + ": "
	f.SecondsLeft = b.SecondsLeft
	used := fmt.Sprintf("%s of %s source ports are in use", figure.Count(b.Used), figure.Count(b.Ports))
	f.Severity = Warning
	switch {
	case b.UsedPercent >= sc.threshold(portCritical):
		f.Severity = Critical
		left := "no source port is left"
		if free > 0 {
			left = "only " + figure.Count(free) + " source ports are left"
		}
		f.Summary = fmt.Sprintf("%s of %s", left, figure.Count(b.Ports))
		// Ports come back at the steps of the timer wheel, and the next connects take
		// them at once: fewer than go in two seconds are none.
		if float64(free) <= b.Now*capacity.RecentSeconds {
			f.FailingNow = true
			f.Summary += "; connect() fails with EADDRNOTAVAIL"
			if g.Traced == nil {
				f.doubt("no counter shows EADDRNOTAVAIL: that connects fail is concluded from the ports; `linger --trace 10s` counts them")
			}
		}
	case b.SecondsLeft != nil:
		f.Severity = Critical
		f.Summary = fmt.Sprintf("the source ports run out in %.0f s at %s closes/s; %s",
			*b.SecondsLeft, figure.Rate(b.Now), used)
		if seconds, known := c.history.Began(); known && seconds < capacity.SustainedSeconds {
			f.doubt(fmt.Sprintf("whether it goes on: it began %d s ago", seconds))
		}
	case b.Predicted >= float64(b.Ports):
		f.Severity = Critical
		f.Summary = fmt.Sprintf("the source ports run out at %s closes/s; %s", figure.Rate(b.Rate), used)
	default:
		at := "at " + figure.Rate(b.Rate) + " closes/s"
		if b.Rate < b.Now {
			at = fmt.Sprintf("at the %s closes/s of the last %d s", figure.Rate(b.Rate), capacity.SustainedSeconds)
		}
		f.Summary = fmt.Sprintf("%s (%s) and %s it settles at %s",
			used, figure.Percent(b.UsedPercent), at, figure.Percent(b.PredictedPercent))
	}

	if t := g.Traced; t != nil {
		if n := portFailures(t); n > 0 {
			f.Severity, f.FailingNow = Critical, true
			f.Summary += fmt.Sprintf(": %s in %.3g s%s", figure.Items(int(n), "connect"), float64(sc.TracedMS)/1000, byWhom(g.Owners))
		}
	}
	if b.Occupied() > 0 || b.Now > 0 {
		f.Why = fmt.Sprintf("A connection that this side closes first keeps its source port in TIME_WAIT for %.3g s: "+
			"%s ports carry %s closes/s for ever",
			b.HoldSeconds, figure.Count(b.Ports), figure.Rate(b.Sustainable))
		if free > 0 { // else connect() fails, and nothing is left to close
			f.Why += ", and there are " + figure.Rate(b.Now) + " now"
		}
		f.Why += ". " + c.since() + " "
	}
	f.Why += fmt.Sprintf("Each connection from %s to %s needs a port of its own.", g.Local, g.Remote)
	closeWait := g.InRange[tcp.CloseWait]
	switch most := max(b.Occupied(), b.Live, b.FinWait2); {
	case most == b.Occupied():
		f.Remedies = p.portRemedies(g, []RemedyID{KeepConnections, PeerClosesFirst})
	case most == b.Live && closeWait*2 >= b.Live:
		f.Why += fmt.Sprintf(" %s of them are in CLOSE_WAIT: the peer has closed them, and the program has not.", figure.Count(closeWait))
		f.Remedies = []RemedyID{CloseSockets, RestartProcess}
	case most == b.Live:
		f.Why += fmt.Sprintf(" %s live connections hold most of them.", figure.Count(b.Live))
		f.Remedies = p.portRemedies(g, []RemedyID{KeepConnections})
	default:
		f.Why += fmt.Sprintf(" %s were closed here and wait in FIN_WAIT2 for the peer to close.", figure.Count(b.FinWait2))
		f.Remedies = p.portRemedies(g, []RemedyID{KeepConnections})
	}

	if t := g.Traced; t != nil {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "connects-without-port", Name: "connects without a port", Value: float64(portFailures(t)),
			Limit: new(float64(t.Opens + t.Failures())), Unit: "connects",
			Source: fmt.Sprintf("traced for %.3g s: SYN_SENT to CLOSE with source port 0, of all connects", float64(sc.TracedMS)/1000),
			Check:  "linger trace --events --ended-by no-port,port-taken",
		})
	}
	f.Evidence = append(f.Evidence, append(portEvidence(p, g, b), c.evidence(p, g, capacity.ConnectorBytes(c.timeWait))...)...)
	f.RuledOut = sc.acquit(p, g, "")
	f.doubtOwners(g)
	if p.BoundPorts == nil {
		f.doubt("ports that programs bound and do not use yet: the kernel tells from 6.8 on, so that fewer may be left")
	}
	if b.Occupied() > 0 || b.Reusable > 0 {
		if e, told := p.takeover(g); told {
			f.Evidence = append(f.Evidence, e)
		}
	}
	if b.Reusable > 0 || p.budgets.Reuse(g.Local.Addr, g.Remote.Addr).Allowed {
		f.doubtTakeover(g)
	}
	f.doubtHistory(g)
	f.WillNotHelp = []Folklore{noFinTimeout, noRecycle, noFewerBuckets, noTimestamps, noBacklog, noSyncookies}
	return f
}

// portFailures are the connects that were traced and found no source port.
func portFailures(t *snapshot.TracedSums) uint64 { return t.Failed["no-port"] + t.Failed["port-taken"] }

// byWhom names the program whose connects found no port, and counts others.
func byWhom(owners []snapshot.Owner) string {
	first, others := "", 0
	for _, o := range owners {
		switch {
		case o.Traced == nil || portFailures(o.Traced) == 0:
		case first == "":
			first = " by " + o.Process
		default:
			others++
		}
	}
	if others > 0 {
		first += " and " + figure.Items(others, "other")
	}
	return first
}

// portless is a namespace whose range of source ports is all taken: no connect()
// can choose one, so that there need not be any connection to show.
func (p *place) portless() draft {
	f := draft{}
	f.Netns, f.Severity, f.Confidence = p.netns, Critical, High
	f.Summary = fmt.Sprintf("%s: no source port is left in %s: all are reserved, listening or bound; connect() fails with EADDRNOTAVAIL",
		p.netns.Label, p.budgets.portRange)
	f.Why = "connect() chooses from ip_local_port_range, less ip_local_reserved_ports and what a bind() owns, " +
		"and nothing is left to choose from."
	f.Evidence = []Evidence{{
		ID: "source-ports", Name: "source ports", Value: 0, Limit: new(float64(p.budgets.portRange.Size())), Unit: "ports",
		Source: keyRange + " less reserved, listening and bound ports", Check: p.sysctl(keyRange + " " + keyReserved),
	}}
	f.Remedies = []RemedyID{WidenPortRange}
	f.WillNotHelp = []Folklore{noFinTimeout, noFewerBuckets, noBacklog}
	return f
}

// portEvidence is the account of a connector's source ports.
func portEvidence(p *place, g *snapshot.Group, b capacity.Budget) []Evidence {
	most := new(float64(b.Ports))
	known := "estimated by their ages"
	if b.Exact {
		known = "exactly"
	}
	return []Evidence{
		{
			ID: "ports-in-use", Name: "source ports used", Value: float64(b.Used), Limit: most, Unit: "ports",
			Source: fmt.Sprintf("sock_diag: %s live, %s TIME_WAIT less %s (%s) that connect() may take over, %s in FIN_WAIT2 without an owner",
				figure.Count(b.Live), figure.Count(b.TimeWait), figure.Count(b.Reusable), known, figure.Count(b.FinWait2)),
			Check: p.in("ss -Htan" + filter(g) + " | wc -l"),
		},
		{
			ID: "ports-predicted", Name: "predicted use", Value: b.Predicted, Limit: most, Unit: "ports",
			Source: fmt.Sprintf("live + %s closes/s × %.3g s, the lower of the last 2 s and the last 20 s; "+
				"%s is %s less reserved, listening and bound ports",
				figure.Rate(b.Rate), b.HoldSeconds, keyRange, p.budgets.portRange),
			Check: p.sysctl(keyRange + " " + keyReserved),
		},
		{
			ID: "closes-now", Name: "closes now", Value: b.Now, Limit: new(b.Sustainable), Unit: "closes/s",
			Source: "sock_diag: closes of the last 2 s, against what the ports can carry",
			Check:  p.in("ss -Htano state time-wait" + filter(g)),
		},
	}
}

// portRemedies adds to the application's own cures what gives a connector more
// ports, or gives them back sooner, where that is not done already.
func (p *place) portRemedies(g *snapshot.Group, own []RemedyID) []RemedyID {
	list := append(own, MoreAddresses, BindAddressNoPort)
	if p.budgets.Missing == nil {
		if r := p.budgets.portRange; r.Low > 1024 || r.High < 65535 {
			list = append(list, WidenPortRange)
		}
		if g.InRange[tcp.TimeWait] > 0 {
			list = append(list, p.obstacles(g)...)
		}
	}
	return append(list, LingerZero)
}
