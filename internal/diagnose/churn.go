package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// churn is how a group's connections end: what both ends of them share.
type churn struct {
	history  capacity.History
	timeWait int
	total    int
	minute   float64 // closes per second over the last minute
	now      float64 // closes per second now
	lower    bool    // the history is of survivors only
	ports    int     // source ports there are, each with one time-wait socket; 0 where none are taken or known
}

func (p *place) churn(g *snapshot.Group) churn {
	c := churn{timeWait: g.States[tcp.TimeWait], total: g.States.Total()}
	if g.Closes != nil {
		c.history = capacity.HistoryOf(g.Closes.PerSecond, g.Closes.Past, c.timeWait)
		c.minute, c.now = c.history.LastMinute(), c.history.Rate(capacity.TimeWaitSeconds)
		c.lower = g.Closes.LowerBound
	}
	if b, ok := p.budgets.Of(g); ok {
		c.ports = b.Ports
	}
	return c
}

// share is the percentage of the group's sockets that are in TIME_WAIT.
func (c churn) share() float64 { return share(float64(c.timeWait), float64(c.total)) }

// settled is how many time-wait sockets there are, or will be at the rate of now:
// those that are taken over make no more of them than there are ports.
func (c churn) settled() float64 {
	will := c.now * capacity.TimeWaitSeconds
	if c.ports > 0 {
		will = min(will, float64(c.ports))
	}
	return max(float64(c.timeWait), will)
}

// closes writes the rate over the last minute; of survivors the latest are the most
// complete.
func (c churn) closes() string {
	if c.lower {
		return "at least " + figure.Rate(max(c.minute, c.history.Now(capacity.TimeWaitSeconds)))
	}
	return figure.Rate(c.minute)
}

// since says for how long the closes have been going on; nothing without any.
func (c churn) since() string {
	if c.history == (capacity.History{}) {
		return ""
	}
	seconds, known := c.history.Began()
	began := "It has gone on for a minute or longer"
	if known {
		began = fmt.Sprintf("It began %d s ago", seconds)
	}
	if stopped := c.history.Stopped(); stopped >= capacity.RecentSeconds {
		return fmt.Sprintf("%s, and stopped %d s ago.", began, stopped)
	}
	return began + "."
}

// evidence is what both ends show; the memory differs.
func (c churn) evidence(p *place, g *snapshot.Group, memory int64) []Evidence {
	const source = "sock_diag: remaining time of each TIME_WAIT socket"
	list := []Evidence{
		{
			ID: "closes-last-minute", Name: "closes, last minute", Value: c.minute, Unit: "closes/s", Source: source,
			Check: p.in("ss -Htano state time-wait" + filter(g)),
		},
		{
			ID: "in-time-wait", Name: "in TIME_WAIT", Value: float64(c.timeWait), Limit: new(float64(c.total)), Unit: "sockets",
			Source: "sock_diag: time-wait sockets of the group, of all its sockets", Check: p.countInState(g, "time-wait"),
		},
	}
	if most, ok := p.buckets(); ok {
		list = append(list, Evidence{
			ID: "of-max-tw-buckets", Name: "of tcp_max_tw_buckets", Value: c.settled(), Limit: new(most), Unit: "sockets",
			Source: "the larger of now and 60 s × closes/s now, against " + keyBuckets, Check: p.sysctl(keyBuckets),
		})
	}
	list = append(list, Evidence{
		ID: "kernel-memory", Name: "kernel memory", Value: float64(memory), Unit: "bytes",
		Source: "slab: tw_sock_TCP and, for source ports, bind buckets (root reads it)", Check: "grep -E 'tw_sock_TCP|bind' /proc/slabinfo",
	})
	if seconds, known := c.history.Began(); known {
		list = append(list, Evidence{
			ID: "began", Name: "began", Value: float64(seconds), Unit: "s ago", Source: source,
			Check: p.in("ss -Htano state time-wait" + filter(g)),
		})
	}
	return list
}

// churning is what makes a group of a role a problem: so many closes per second over the
// last minute, with that share of its sockets in TIME_WAIT.
type churning struct {
	role      tcp.Role
	end       string // the role in a word
	perSecond float64
	share     float64
	report    func(*place, *snapshot.Group, *verdict) draft
}

// judge looks for such groups.
func (c churning) judge(sc *scene) (v verdict) {
	s := survey{
		none:   "no " + c.end + " here has sockets in TIME_WAIT",
		judge:  c.closesOf,
		report: c.report,
		fullest: func(p *place, g *snapshot.Group) string {
			busiest := p.churn(g)
			return fmt.Sprintf("the busiest %s that closes first, %s in %s, closed %s connections/s over the last minute; "+
				"%s of its sockets are in TIME_WAIT", c.end, who(g), p.netns.Label, busiest.closes(), figure.Percent(busiest.share()))
		},
		other: func(p *place) bool {
			return float64(p.mostInOther(p.Other.States[tcp.TimeWait])) >= c.perSecond*capacity.TimeWaitSeconds
		},
	}
	for _, p := range sc.readable(&v) {
		found := len(v.findings)
		s.walk(p, &v)
		if len(v.findings) == found {
			v.unknown = append(v.unknown, sc.survivors(p, c.role, c.perSecond)...)
		}
	}
	v.absent = s.absent()
	return v
}

// closesOf is how many connections a group closed per second.
func (c churning) closesOf(p *place, g *snapshot.Group, _ *verdict) (standing, float64) {
	closes := p.churn(g)
	enough := closes.minute >= c.perSecond && closes.share() >= c.share
	switch {
	case g.Role == tcp.RoleUnknown && enough:
		return roleless, 0
	case g.Role != c.role:
		return apart, 0
	case enough:
		return problem, closes.minute
	case closes.timeWait > 0:
		return below, closes.minute
	default:
		return apart, 0
	}
}

// survivors tells whether closes of a namespace left no socket to count, so that a
// rate that looks low may not be. connect() takes over the sockets of connectors
// alone; the limit drops those of both.
func (sc *scene) survivors(p *place, role tcp.Role, perSecond float64) []Unknown {
	if sc.WindowMS == 0 {
		return nil
	}
	created, known := p.Counters.Rose("TcpExtTW")
	var recycled uint64
	if role == tcp.Connector {
		recycled, _ = p.Counters.Rose("TcpExtTWRecycled")
	}
	overflow, _ := p.Counters.Rose("TcpExtTCPTimeWaitOverflow")
	if !known || recycled+overflow == 0 || float64(created+overflow)*1000/float64(sc.WindowMS) < perSecond {
		return nil
	}
	return []Unknown{p.lacks(LackTracing, fmt.Sprintf(
		"tracing: %s sockets left TIME_WAIT early in this window, and the closes that made them can no longer be counted",
		figure.Count(recycled+overflow)))}
}
