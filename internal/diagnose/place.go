package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// buckets is the limit of time-wait sockets, of the namespace or, through kernel
// 4.10, of the host.
func (p *place) buckets() (float64, bool) {
	n, ok := p.Settings.Int(keyBuckets)
	if !ok {
		n, ok = p.host.Settings.Int(keyBuckets)
	}
	return float64(n), ok
}

// timeWaitSockets counts what tcp_max_tw_buckets limits.
func (p *place) timeWaitSockets() (int, bool) {
	switch {
	case p.Sockstat != nil:
		return int(p.Sockstat.TimeWait), true
	case p.SocketsRead && p.SocketsComplete:
		return p.States.TimeWaitSockets(), true
	default:
		return 0, false
	}
}

// in is the command as it must be typed to run in this namespace.
func (p *place) in(command string) string { return In(p.netns, command) }

// filter is the part of an ss command that selects a group.
func filter(g *snapshot.Group) string {
	end := func(word string, e tcp.Endpoint) string {
		if e.Addr.IsValid() && !e.Addr.IsUnspecified() {
			return " " + word + " " + Quote(ssAddress(e))
		}
		if e.Port != 0 {
			return fmt.Sprintf(" %sport = :%d", word[:1], e.Port)
		}
		return ""
	}
	return end("src", g.Local) + end("dst", g.Remote)
}

// ssAddress is an end as ss reads it: an IPv6 address in brackets, with or without
// a port.
func ssAddress(e tcp.Endpoint) string {
	if e.Addr.Is6() && e.Port == 0 {
		return "[" + e.Addr.String() + "]"
	}
	return e.String()
}

// countInState is the command that counts a group's sockets in a state of ss.
func (p *place) countInState(g *snapshot.Group, state string) string {
	return p.in("ss -Htan state " + state + filter(g) + " | wc -l")
}

func (p *place) sysctl(key string) string { return p.in("sysctl " + key) }

// serves ties findings to a service as seen from the namespace: its own, or that of its
// clients.
func (p *place) serves(service tcp.Endpoint) tie { return tie{netns: p.netns.ID(), service: service} }

// about begins the finding on a group: its subject, owners and what it shares with
// others.
func (p *place) about(g *snapshot.Group) draft {
	f := draft{sockets: g.States.Total()}
	f.Netns = p.netns
	f.Subject = Subject{Role: g.Role, Local: g.Local, Remote: g.Remote}
	f.Key.Subject = f.Subject
	f.Owners, f.Peer = g.Owners, g.Peer
	service := g.Remote
	if g.Role == tcp.Acceptor {
		service = g.Local
	} else if g.Peer != nil {
		f.otherEnd = tie{netns: idOf(g.Peer.Cookie, g.Peer.Inode), service: service}
	}
	f.ties = []tie{p.serves(service)}
	f.Confidence = High
	if g.Rule == tcp.ByFanOut {
		f.lower(Medium)
		f.doubt("the role is told from many ports on one side and one on the other: no listener of either end was seen")
	}
	if !p.SocketsComplete {
		f.lower(Low)
		f.doubt("reading the sockets was cut short: the numbers are too low")
	}
	return f
}

// doubt adds something that the finding is not sure of.
func (f *draft) doubt(what string) { f.Unsure = append(f.Unsure, what) }

// lower lowers the confidence, and never raises it.
func (f *draft) lower(to Confidence) {
	if f.Confidence == High || to == Low {
		f.Confidence = to
	}
}

// doubtOwners says how sure the owners of a connector's closed connections are.
func (f *draft) doubtOwners(g *snapshot.Group) {
	switch {
	case len(g.Owners) == 0:
		f.lower(Medium)
		f.doubt("who made these connections: the kernel forgets the owner of a TIME_WAIT socket, and no live socket to " +
			g.Remote.String() + " could be matched to a process")
	case g.Owners[0].How == snapshot.Inferred && len(g.Owners) > 1:
		f.lower(Medium)
		f.doubt(fmt.Sprintf("which of the %d processes: the kernel forgets who made a TIME_WAIT socket, "+
			"and each of them has or opens connections like these", len(g.Owners)))
	case g.Owners[0].How == snapshot.Inferred:
		f.lower(Medium)
		f.doubt("the owner is inferred: the kernel forgets who made a TIME_WAIT socket")
	}
}

// orphanOwners leaves of a finding on orphans those that were seen to close them, and the
// service: no process has an orphan, and who has other connections to the same
// destination did not make these.
func (f *draft) orphanOwners() {
	var closed []snapshot.Owner
	for _, o := range f.Owners {
		if o.Traced != nil || o.How == snapshot.Listening {
			closed = append(closed, o)
		}
	}
	f.Owners = closed
}

// doubtHistory says what a history of survivors cannot show.
func (f *draft) doubtHistory(g *snapshot.Group) {
	if g.Closes != nil && g.Closes.LowerBound {
		f.doubt("closes/s is a lower bound: some sockets left TIME_WAIT early in this window (TWRecycled or TCPTimeWaitOverflow rose)")
	}
	f.doubt("opens per second: only tracing shows them; closes per second stand in for them")
}

// readable are the namespaces whose sockets a rule can judge. What keeps it from
// judging the others, or all of their sockets, goes into the verdict.
func (sc *scene) readable(v *verdict) []*place {
	var readable []*place
	for _, p := range sc.places {
		if !p.SocketsRead {
			v.unknown = append(v.unknown, p.lacks(LackSockets, "the sockets of the namespace: "+sc.gap(p.netns.Label)))
			continue
		}
		if !p.SocketsComplete {
			v.unknown = append(v.unknown, p.lacks(LackSockets, "all sockets of the namespace: reading them was cut short"))
		}
		readable = append(readable, p)
	}
	return readable
}

// accountable are the readable namespaces whose connectors have budgets.
func (sc *scene) accountable(v *verdict) []*place {
	var accountable []*place
	for _, p := range sc.readable(v) {
		if p.budgets.Missing == nil {
			accountable = append(accountable, p)
		} else if len(p.Groups) > 0 {
			v.unknown = append(v.unknown, p.noBudget())
		}
	}
	return accountable
}

// lacks is what a rule needs of the namespace and does not have.
func (p *place) lacks(what Lack, needs string) Unknown {
	return Unknown{Lack: what, Places: []Netns{p.netns}, Netns: p.netns.Label, Needs: needs}
}

// noBudget says what is missing to account for source ports.
func (p *place) noBudget() Unknown {
	return p.lacks(LackSettings, fmt.Sprintf("readable sysctls: %v", p.budgets.Missing))
}

// mostInOther is how many of so many sockets in groups beyond the cap one of them may
// have: no more than the smallest group that was kept.
func (p *place) mostInOther(n int) int {
	if len(p.Groups) > 0 {
		n = min(n, p.Groups[len(p.Groups)-1].States.Total())
	}
	return n
}

// needsRoom is what groups beyond the cap lack to be judged.
func (p *place) needsRoom() Unknown {
	return p.lacks(LackOther, fmt.Sprintf("%s smaller groups one by one: they were folded, with %s sockets, %s in TIME_WAIT",
		figure.Count(p.Other.Groups), figure.Count(p.Other.States.Total()), figure.Count(p.Other.States[tcp.TimeWait])))
}

// undecided is a group whose role could not be told.
func (p *place) undecided(g *snapshot.Group) Unknown {
	return p.lacks(LackRole, "the role in "+way(g.Local, g.Remote)+" ("+figure.Count(g.States.Total())+
		" sockets): no listener of either end was seen, and no side fans out")
}

// who names a group: the service of an acceptor, both ends otherwise.
func who(g *snapshot.Group) string {
	if g.Role == tcp.Acceptor {
		return g.Local.String()
	}
	return way(g.Local, g.Remote)
}
