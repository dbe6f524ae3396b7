package collect

import (
	"cmp"
	"math"
	"slices"

	"linger/internal/kernel/sockdiag"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Sizes that bound the memory of a reading whatever the number of sockets. A
// group takes about half a kilobyte.
const (
	// maxGroups is how many groups one namespace keeps; twice as many are held
	// while reading, and the smaller half is folded whenever that is reached. A
	// culprit that comes last grows faster than it is folded.
	maxGroups = 4096
	// minGroups is kept of each namespace even where others took all the room.
	minGroups = 64
	// clientsKept is how many clients of an acceptor are reported; clientsHeld
	// how many are counted while reading, for these to be the right ones.
	clientsKept = 20
	clientsHeld = 256
	// inodesHeld is the size of the sample of a group's live sockets, from which
	// its owners are told.
	inodesHeld = 16
	// selfKept is how many connections of a socket with itself are named.
	selfKept = 20
	// fanOut is how many times as many connections must share one side's port
	// for that side to be the service.
	fanOut = 8
	// fanOutSure is from how many connections on fanOut is believed before all
	// sockets are read.
	fanOutSure = 64
)

// groupKey is what the connections of a group share. A connector's has the
// remote port, an acceptor's the local port and no remote address.
type groupKey struct {
	local, remote sockdiag.Addr
	port          uint16
}

// group is a snapshot.Group while it is counted.
type group struct {
	role    tcp.Role
	rule    tcp.RoleRule
	key     groupKey
	sockets int
	states  [tcp.NumStates]uint32
	inRange [tcp.NumStates]uint32
	// noFile and unanswered are few, but for a host in trouble.
	noFile, unanswered *[tcp.NumStates]uint32
	otherParity        uint32
	// youngFinWait2 are time-wait sockets in FIN_WAIT2 with more than youngAbove
	// milliseconds left.
	youngFinWait2, youngAbove uint32
	// localPort is that of the group's first socket.
	localPort uint16
	closes    *snapshot.CloseHistory
	inodes    sample
	// otherParityInodes are of the live sockets among otherParity.
	otherParityInodes *sample
	clients           *clients
	// makers are of the time-wait sockets whose makers were seen.
	makers  map[maker]int
	makerOf func(*sockdiag.Socket) (maker, bool)
}

// maker is who closed connections first.
type maker struct {
	process string
	cgroup  uint64
}

// traceRole is the role in which tracing knows a group.
func (g *group) traceRole() tcp.Role {
	if g.role == tcp.Acceptor {
		return tcp.Acceptor
	}
	return tcp.Connector
}

func (g *group) add(s *sockdiag.Socket, port portPlace, draw uint32) {
	g.sockets++
	g.states[s.State]++
	if port != outOfRange {
		g.inRange[s.State]++
	}
	if port == otherParity {
		g.otherParity++
	}
	if s.Inode == 0 && s.State != tcp.TimeWait && s.State != tcp.FinWait2TimeWait {
		count(&g.noFile, s.State, 1)
	}
	if s.Unanswered >= unansweredFrom {
		count(&g.unanswered, s.State, 1)
	}
	if s.State == tcp.TimeWait {
		if g.closes == nil {
			g.closes = new(snapshot.CloseHistory)
		}
		record(g.closes, s.Expires)
	}
	if s.State == tcp.FinWait2TimeWait && s.Expires > g.youngAbove {
		g.youngFinWait2++
	}
	if s.Inode != 0 {
		g.inodes.add(s.Inode, draw)
		if port == otherParity {
			g.addOtherParity(s.Inode, draw)
		}
	}
	if g.makerOf != nil && (s.State == tcp.TimeWait || s.State == tcp.FinWait2TimeWait) {
		if m, known := g.makerOf(s); known {
			g.made(m, 1)
		}
	}
	if g.clients != nil {
		g.clients.add(s.Remote, s.State)
	}
}

func (g *group) addOtherParity(inode, draw uint32) {
	if g.otherParityInodes == nil {
		g.otherParityInodes = &sample{}
	}
	g.otherParityInodes.add(inode, draw)
}

func (g *group) made(m maker, n int) {
	if g.makers == nil {
		g.makers = map[maker]int{}
	}
	g.makers[m] += n
}

// unansweredFrom is from how many segments or probes in a row on the peer counts
// as silent: one or two are lost on any network.
const unansweredFrom = 3

// portPlace is where a source port lies.
type portPlace uint8

const (
	outOfRange portPlace = iota
	sameParity           // as the low end of the range
	otherParity
)

func placeOf(ports tcp.PortRange, port uint16) portPlace {
	switch {
	case !ports.Contains(port):
		return outOfRange
	case (port^ports.Low)&1 == 0:
		return sameParity
	default:
		return otherParity
	}
}

func count(states **[tcp.NumStates]uint32, s tcp.State, n uint32) {
	if *states == nil {
		*states = new([tcp.NumStates]uint32)
	}
	(*states)[s] += n
}

// timeWaitMS is TCP_TIMEWAIT_LEN of include/net/tcp.h in milliseconds.
const timeWaitMS = snapshot.HistorySeconds * 1000

// record puts a TIME_WAIT socket with that much time left, in milliseconds, into
// the second in which it entered the state.
func record(h *snapshot.CloseHistory, expires uint32) {
	if expires == 0 {
		h.Past++
		return
	}
	age := (timeWaitMS - min(expires, timeWaitMS)) / 1000
	h.PerSecond[min(age, snapshot.HistorySeconds-1)]++
}

// merge adds all of other, whose sockets had the one remote address.
func (g *group) merge(other *group) {
	g.sockets += other.sockets
	for s := range other.states {
		g.states[s] += other.states[s]
		g.inRange[s] += other.inRange[s]
	}
	g.otherParity += other.otherParity
	g.youngFinWait2 += other.youngFinWait2
	for s := range other.states {
		if other.noFile != nil && other.noFile[s] > 0 {
			count(&g.noFile, tcp.State(s), other.noFile[s])
		}
		if other.unanswered != nil && other.unanswered[s] > 0 {
			count(&g.unanswered, tcp.State(s), other.unanswered[s])
		}
	}
	if other.closes != nil {
		if g.closes == nil {
			g.closes = new(snapshot.CloseHistory)
		}
		for i, n := range other.closes.PerSecond {
			g.closes.PerSecond[i] += n
		}
		g.closes.Past += other.closes.Past
	}
	for m, n := range other.makers {
		g.made(m, n)
	}
	for i, inode := range other.inodes.kept {
		g.inodes.add(inode, uint32(i))
	}
	if other.otherParityInodes != nil {
		for i, inode := range other.otherParityInodes.kept {
			g.addOtherParity(inode, uint32(i))
		}
	}
	if g.clients != nil {
		g.clients.merge(other.key.remote, clientCount{
			sockets:  other.sockets,
			timeWait: int(other.states[tcp.TimeWait]),
			finWait2: int(other.states[tcp.FinWait2] + other.states[tcp.FinWait2TimeWait]),
		})
	}
}

// closesGoOn tells whether any socket of the group entered TIME_WAIT in the last two
// seconds.
func (g *group) closesGoOn() bool {
	return g.closes != nil && g.closes.PerSecond[0]+g.closes.PerSecond[1] > 0
}

func (g *group) snapshot() snapshot.Group {
	out := snapshot.Group{
		Role:    g.role,
		Rule:    g.rule,
		Local:   tcp.Endpoint{Addr: g.key.local.Netip()},
		Remote:  tcp.Endpoint{Addr: g.key.remote.Netip(), Port: g.key.port},
		States:  widen(g.states),
		InRange: widen(g.inRange),
		Closes:  g.closes,

		OtherParity:   int(g.otherParity),
		YoungFinWait2: int(g.youngFinWait2),
	}
	if g.noFile != nil {
		out.NoFile = widen(*g.noFile)
	}
	if g.unanswered != nil {
		out.Unanswered = widen(*g.unanswered)
	}
	if g.role == tcp.Acceptor {
		out.Local.Port, out.Remote = g.key.port, tcp.Endpoint{}
		out.Clients, out.ClientsComplete = g.clients.busiest()
	}
	return out
}

func widen(counts [tcp.NumStates]uint32) (states tcp.States) {
	for s, n := range counts {
		states[s] = int(n)
	}
	return states
}

// sample keeps inodes of live sockets, each seen with the same chance to be kept
// (Vitter's reservoir, algorithm R).
type sample struct {
	kept []uint32
	seen uint32
}

func (s *sample) add(inode, draw uint32) {
	s.seen++
	if len(s.kept) < inodesHeld {
		s.kept = append(s.kept, inode)
		return
	}
	if at := draw % s.seen; at < inodesHeld {
		s.kept[at] = inode
	}
}

// clients counts an acceptor's sockets by remote address.
type clients struct {
	byAddr map[sockdiag.Addr]clientCount
	folded bool
}

type clientCount struct{ sockets, timeWait, finWait2 int }

func newClients() *clients { return &clients{byAddr: map[sockdiag.Addr]clientCount{}} }

func (c *clients) add(addr sockdiag.Addr, state tcp.State) {
	n := clientCount{sockets: 1}
	switch state {
	case tcp.TimeWait:
		n.timeWait = 1
	case tcp.FinWait2, tcp.FinWait2TimeWait:
		n.finWait2 = 1
	}
	c.merge(addr, n)
}

func (c *clients) merge(addr sockdiag.Addr, more clientCount) {
	n, known := c.byAddr[addr]
	if !known && len(c.byAddr) >= clientsHeld {
		c.fold()
	}
	c.byAddr[addr] = clientCount{n.sockets + more.sockets, n.timeWait + more.timeWait, n.finWait2 + more.finWait2}
}

// fold forgets the smaller half.
func (c *clients) fold() {
	c.folded = true
	for _, client := range c.sorted()[clientsHeld/2:] {
		delete(c.byAddr, sockdiag.Addr(client.Addr.As16()))
	}
}

func (c *clients) sorted() []snapshot.Client {
	all := make([]snapshot.Client, 0, len(c.byAddr))
	for addr, n := range c.byAddr {
		all = append(all, snapshot.Client{Addr: addr.Netip(), Sockets: n.sockets, TimeWait: n.timeWait, FinWait2: n.finWait2})
	}
	slices.SortFunc(all, func(a, b snapshot.Client) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), a.Addr.Compare(b.Addr))
	})
	return all
}

func (c *clients) busiest() (kept []snapshot.Client, complete bool) {
	all := c.sorted()
	return slices.Clip(all[:min(len(all), clientsKept)]), !c.folded && len(all) <= clientsKept
}

// grouper turns the sockets of one namespace into groups, one socket after the
// other.
type grouper struct {
	listeners *listenerIndex
	namespace int // its index in listeners
	ports     tcp.PortRange
	capacity  int

	connectors map[groupKey]*group // of unknown role too, until done
	acceptors  map[groupKey]*group
	other      snapshot.Other
	states     [tcp.NumStates]uint32
	self       []tcp.Endpoint // of connections with themselves
	draw       uint32
	fan        *fan
	// makerOf tells who made a time-wait socket, nil where nothing was traced.
	makerOf func(*sockdiag.Socket) (maker, bool)
	// youngAbove is how much time a time-wait socket in FIN_WAIT2 has left while it is
	// young, in milliseconds.
	youngAbove uint32
}

// finWait2OldMS is the age from which a peer that has not closed is more than late.
const finWait2OldMS = 3000

// youngAbove is that of a namespace, by its tcp_fin_timeout. Above 60 s a socket is full
// for the first of its time, and no longer young when it becomes a time-wait socket
// (tcp_rcv_state_process of net/ipv4/tcp_input.c).
func youngAbove(s snapshot.Settings) uint32 {
	timeout, known := s.Int(setting.FinTimeout)
	if !known || timeout < 0 || timeout > snapshot.HistorySeconds {
		return math.MaxUint32
	}
	ms := uint32(timeout) * 1000
	return ms - min(finWait2OldMS, ms/2)
}

// fan counts the connections of unknown role by their ports.
type fan struct {
	local, remote [1 << 16]uint32
}

func newGrouper(index *listenerIndex, namespace int, ports tcp.PortRange, capacity int, f *fan) *grouper {
	*f = fan{}
	return &grouper{
		listeners:  index,
		namespace:  namespace,
		ports:      ports,
		capacity:   capacity,
		connectors: map[groupKey]*group{},
		acceptors:  map[groupKey]*group{},
		draw:       1,
		youngAbove: math.MaxUint32,
		fan:        f,
	}
}

// add counts one socket; listeners and unconnected sockets are not for it.
func (gr *grouper) add(s *sockdiag.Socket) {
	gr.states[s.State]++
	// xorshift32 (Marsaglia 2003): the sample needs no better chance.
	gr.draw ^= gr.draw << 13
	gr.draw ^= gr.draw >> 17
	gr.draw ^= gr.draw << 5
	port := placeOf(gr.ports, s.LocalPort)
	if s.LocalPort == s.RemotePort && s.Local == s.Remote && len(gr.self) < selfKept {
		gr.self = append(gr.self, tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort})
	}

	asConnector := groupKey{s.Local, s.Remote, s.RemotePort}
	if gr.listeners.ports[s.RemotePort] {
		if g := gr.connectors[asConnector]; g != nil && g.rule == tcp.ByRemoteListener {
			g.add(s, port, gr.draw)
			return
		} else if g == nil && gr.listeners.remote(gr.namespace, s.Remote, s.RemotePort) {
			gr.insert(gr.connectors, asConnector, s, tcp.Connector, tcp.ByRemoteListener).add(s, port, gr.draw)
			return
		}
	}
	asAcceptor := groupKey{local: s.Local, port: s.LocalPort}
	if gr.listeners.ports[s.LocalPort] {
		if g := gr.acceptors[asAcceptor]; g != nil {
			g.add(s, port, gr.draw)
			return
		} else if gr.listeners.covers(gr.namespace, s.Local, s.LocalPort) {
			gr.insert(gr.acceptors, asAcceptor, s, tcp.Acceptor, tcp.ByLocalListener).add(s, port, gr.draw)
			return
		}
	}

	gr.fan.local[s.LocalPort]++
	gr.fan.remote[s.RemotePort]++
	if local, remote := gr.fan.local[s.LocalPort], gr.fan.remote[s.RemotePort]; local >= fanOutSure && local >= fanOut*remote {
		g := gr.acceptors[asAcceptor]
		if g == nil {
			g = gr.insert(gr.acceptors, asAcceptor, s, tcp.Acceptor, tcp.ByFanOut)
		}
		g.add(s, port, gr.draw)
		return
	}
	g := gr.connectors[asConnector]
	if g == nil {
		g = gr.insert(gr.connectors, asConnector, s, tcp.RoleUnknown, tcp.ByNoRule)
	}
	g.add(s, port, gr.draw)
}

func (gr *grouper) insert(into map[groupKey]*group, key groupKey, s *sockdiag.Socket, role tcp.Role, rule tcp.RoleRule) *group {
	if len(gr.connectors)+len(gr.acceptors) >= 2*gr.capacity {
		gr.fold()
	}
	g := &group{role: role, rule: rule, key: key, localPort: s.LocalPort, makerOf: gr.makerOf, youngAbove: gr.youngAbove}
	if role == tcp.Acceptor {
		g.clients = newClients()
	}
	into[key] = g
	return g
}

// fold moves all but the largest groups to other, until capacity is met.
func (gr *grouper) fold() {
	all := gr.all()
	for _, g := range all[min(len(all), gr.capacity):] {
		gr.other.Groups++
		gr.other.States.Add(widen(g.states))
		if g.role == tcp.Acceptor {
			delete(gr.acceptors, g.key)
		} else {
			delete(gr.connectors, g.key)
		}
	}
}

// all returns the groups in falling order of size, and in a fixed order among
// equals.
func (gr *grouper) all() []*group {
	all := make([]*group, 0, len(gr.connectors)+len(gr.acceptors))
	for _, g := range gr.connectors {
		all = append(all, g)
	}
	for _, g := range gr.acceptors {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *group) int {
		return cmp.Or(
			cmp.Compare(b.sockets, a.sockets),
			slices.Compare(a.key.local[:], b.key.local[:]),
			slices.Compare(a.key.remote[:], b.key.remote[:]),
			cmp.Compare(a.key.port, b.key.port),
		)
	})
	return all
}

// done settles the roles that only all sockets together show, and returns the
// groups.
func (gr *grouper) done() []*group {
	for key, g := range gr.connectors {
		if g.role != tcp.RoleUnknown {
			continue
		}
		local, remote := gr.fan.local[g.localPort], gr.fan.remote[key.port]
		switch {
		case g.sockets >= fanOut || remote >= fanOut*local:
			// Connections of one group share all but the local port, so that a group
			// of eight is a fan-out of eight to one by itself.
			g.role, g.rule = tcp.Connector, tcp.ByFanOut
		case local >= fanOut*remote && g.sockets == 1:
			asAcceptor := groupKey{local: key.local, port: g.localPort}
			into := gr.acceptors[asAcceptor]
			if into == nil {
				into = &group{role: tcp.Acceptor, rule: tcp.ByFanOut, key: asAcceptor, clients: newClients()}
				gr.acceptors[asAcceptor] = into
			}
			into.merge(g)
			delete(gr.connectors, key)
		}
	}
	gr.fold()
	return gr.all()
}
