package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// BindBeforeConnect: a program lets bind() choose its source ports.
const BindBeforeConnect Slug = "bind-before-connect"

var bindBeforeConnectRule = Rule{
	Slug:       BindBeforeConnect,
	Title:      "a program binds its source before it connects: a port serves one connection, whatever the destination",
	Needs:      "sockets, ip_local_port_range",
	Thresholds: []Threshold{boundPorts, boundUse},
	Remedies:   []RemedyID{BindAddressNoPort, KeepConnections, MoreAddresses, WidenPortRange},
	judge:      judgeBindBeforeConnect,
}

var (
	boundPorts = Threshold{
		Name: "bind-before-connect.ports", Default: 50, Unit: "ports",
		Reason: "of one source address to one service, of the parity that connect() avoids: fewer may be chance",
	}
	boundUse = Threshold{
		Name: "bind-before-connect.warning-percent", Default: 30, Unit: percentUnit,
		Reason: "of the ports, over all destinations: below it the load may triple before bind() fails",
	}
)

func judgeBindBeforeConnect(sc *scene) (v verdict) {
	s := survey{
		none:   "no source port looks chosen by bind()",
		judge:  sc.bindingOf,
		report: sc.bound,
		fullest: func(p *place, g *snapshot.Group) string {
			return fmt.Sprintf("the most source ports that bind() may have chosen are %s of %s (%s, in %s)",
				figure.Count(p.binding(g).ports), figure.Count(g.InRange.Total()), who(g), p.netns.Label)
		},
	}
	for _, p := range sc.accountable(&v) {
		s.walk(p, &v)
	}
	v.absent = s.absent()
	return v
}

// bindingOf is how many of a group's ports bind() chose. Those of one source address are
// one problem, told of the largest group.
func (sc *scene) bindingOf(p *place, g *snapshot.Group, v *verdict) (standing, float64) {
	if g.Role != tcp.Connector {
		return apart, 0
	}
	b := p.binding(g)
	if !b.told {
		v.unknown = append(v.unknown, p.lacks(LackIterator, "a BPF iterator: more than half of the ports to "+g.Remote.String()+
			" are in use, and their parity no longer tells who chose them"))
	}
	switch {
	case !sc.many(b, g):
		return below, float64(b.ports)
	case sc.boundSource(p, g).largest != g:
		return apart, 0
	default:
		return problem, float64(b.ports)
	}
}

// binding is what bind() took of a group's ports.
type binding struct {
	ports int
	// told is false where nothing tells, exact true where no port was inferred, seen where
	// connect() was traced.
	told, exact, seen bool
}

func (p *place) binding(g *snapshot.Group) binding {
	var b binding
	b.ports, b.told = p.bound(g)
	b.seen = g.Traced != nil && g.Traced.Opens > 0
	b.told = b.told || b.seen
	b.exact = g.Takeover != nil && g.Takeover.Bound == b.ports
	if b.seen && (g.Takeover == nil || g.Traced.Bound > 0) {
		// What was seen at connect() comes before what ports look like.
		b.exact, b.ports = true, int(float64(g.InRange.Total())*float64(g.Traced.Bound)/float64(g.Traced.Opens))
	}
	return b
}

// boundShare is the least share, in percent, of a group's ports beyond what connect()
// explains: bind() alone gives all of them while half of the range is free, and half
// of them when it is full.
const boundShare = 40

// many tells whether bind() took so many of a group's ports that it is no chance.
func (sc *scene) many(b binding, g *snapshot.Group) bool {
	return float64(b.ports) >= sc.threshold(boundPorts) && (b.exact || share(float64(b.ports), float64(g.InRange.Total())) >= boundShare)
}

// boundSource is what bind() took of the ports of one source address.
type boundSource struct {
	largest       *snapshot.Group
	groups        int
	ports, parity int
	exact         int    // of ports, those that TIME_WAIT sockets are known to hold by bind()
	inferred      bool   // some are told by their parity
	opens, seen   uint64 // traced, and those of them with a source port before connect()
}

// boundSource adds up the groups with the source address of one.
func (sc *scene) boundSource(p *place, of *snapshot.Group) (s boundSource) {
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.Role != tcp.Connector || g.Local.Addr != of.Local.Addr {
			continue
		}
		b := p.binding(g)
		if !sc.many(b, g) {
			continue
		}
		if s.largest == nil {
			s.largest = g
		}
		s.groups++
		if g.Takeover != nil {
			s.exact += g.Takeover.Bound
		}
		if b.seen {
			s.opens, s.seen = s.opens+g.Traced.Opens, s.seen+g.Traced.Bound
		}
		if b.exact {
			s.ports += b.ports
		} else {
			s.ports += g.InRange.Total()
			s.parity += g.OtherParity
			s.inferred = true
		}
	}
	return s
}

// bound is how many of a group's ports bind() chose: exactly of those in TIME_WAIT,
// where each was asked, and by parity else.
func (p *place) bound(g *snapshot.Group) (bound int, told bool) {
	bound, told = p.boundByParity(g)
	if g.Takeover == nil {
		return bound, told
	}
	live := g.InRange.Total() - g.InRange[tcp.TimeWait]
	if !told {
		bound = 0
	}
	// What is not bound in TIME_WAIT has its parity for another reason.
	bound = max(g.Takeover.Bound, min(bound, g.Takeover.Bound+live))
	return bound, told || live <= g.InRange[tcp.TimeWait]
}

// boundByParity is how many of a group's ports connect() would not have chosen: it
// takes a port of the other parity only when it finds no other. Above three quarters
// of the range that tells nothing (false).
func (p *place) boundByParity(g *snapshot.Group) (bound int, told bool) {
	ports, _ := p.budgets.Ports()
	n := g.InRange.Total()
	explained := max(0, n-ports/2)
	return max(0, g.OtherParity-explained), n <= ports/2 || g.OtherParity <= n/4
}

func (sc *scene) bound(p *place, g *snapshot.Group, _ *verdict) draft {
	s := sc.boundSource(p, g)
	f := p.about(g)
	f.Key.Subject = Subject{Role: g.Role, Local: g.Local}
	ports, within := p.budgets.Ports()
	used := share(float64(s.ports), float64(ports))
	f.sockets = s.ports
	f.Severity = Info
	switch {
	case used >= sc.threshold(portCritical):
		f.Severity, f.FailingNow = Critical, true
	case used >= sc.threshold(boundUse):
		f.Severity = Warning
	}
	if s.inferred && s.seen == 0 && len(g.OtherParityOwners) > 0 {
		// Others may have connections of the group too, by connect().
		f.Owners = g.OtherParityOwners
	}
	name := "a program"
	if len(f.Owners) > 0 {
		name = f.Owners[0].Process
	}
	f.Summary = fmt.Sprintf("%s binds %s before it connects: %s of %s source ports of that address are taken, for all destinations together",
		name, g.Local.Addr, figure.Count(s.ports), figure.Count(ports))
	f.Why = "bind() with port 0 chooses the port before the destination is known, so that the kernel gives it to nobody else: " +
		"not to another destination, and not to other programs' connect(). " +
		"tcp_tw_reuse does not free it while it is in TIME_WAIT. At the end bind() fails with EADDRINUSE."
	if s.inferred {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "ports-of-source", Name: "ports of the source address",
			Value: float64(s.ports), Limit: new(float64(ports)), Unit: "ports",
			Source: fmt.Sprintf("sock_diag: sockets of %s with a source port in the range", figure.Items(s.groups, "destination")),
			Check:  p.in("ss -Htan src " + quote(ssAddress(g.Local)) + " | wc -l"),
		}, Evidence{
			ID: "parity", Name: "parity of bind()", Value: float64(s.parity), Limit: new(float64(s.ports)), Unit: "ports",
			Source: fmt.Sprintf("sock_diag: ports whose parity is not that of %d, the low end of the range", within.Low),
			Check: p.in("ss -Htan src "+quote(ssAddress(g.Local))) +
				fmt.Sprintf(` | awk '{n=split($4,a,":"); if ((a[n]+%d)%%2) c++} END {print c+0}'`, within.Low%2),
		})
	}
	if s.seen > 0 {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "bound-before-connect", Name: "bound before connect()",
			Value: float64(s.seen), Limit: new(float64(s.opens)), Unit: "connections",
			Source: fmt.Sprintf("traced for %.3g s: connections that had a source port when connect() was called", float64(sc.TracedMS)/1000),
			Check:  "linger trace -o jsonl | jq 'select(.bound_before_connect > 0) | {process, local, remote, opens, bound_before_connect}'",
		})
	}
	if s.exact > 0 {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "ports-owned", Name: "ports that bind() owns", Value: float64(s.exact), Limit: new(float64(ports)), Unit: "ports",
			Source: "exact, each socket in TIME_WAIT asked by a BPF iterator (fastreuse of its inet_bind_bucket)",
			Check:  "linger -o json | jq '.namespaces[].groups[] | select(.takeover) | {local, remote, takeover}'",
		})
	}
	if s.inferred {
		f.lower(Medium)
		f.doubt("that bind() chose the ports is inferred from their parity: connect() prefers that of the range's low end, bind() the other")
	}
	f.doubtOwners(g)
	f.RuledOut = sc.acquit(p, g, "")
	f.Remedies = []RemedyID{BindAddressNoPort, KeepConnections, MoreAddresses, WidenPortRange}
	f.WillNotHelp = []Folklore{
		Folklore(setting.ReuseAfterBind),
		{"SO_REUSEADDR, SO_REUSEPORT",
			"bind() with port 0 still looks for a port of its own; only with ip_autobind_reuse=1 does SO_REUSEADDR change that"},
		noFinTimeout, noRecycle,
	}
	return f
}
