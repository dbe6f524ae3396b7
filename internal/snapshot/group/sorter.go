package group

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

const (
	// selfTold is how many connections of a socket with itself are named.
	selfTold = 20
	// fanOut is how many times as many connections must share one side's port
	// for that side to be the service.
	fanOut = 8
	// fanOutSure is from how many connections on fanOut is believed before all
	// sockets are read.
	fanOutSure = 64
)

// Sorter sorts the sockets of one namespace into groups, one after the other, and keeps none.
type Sorter struct {
	index     *Index
	namespace int // its place in index
	ports     tcp.PortRange
	capacity  int

	connectors map[Key]*Group // of unknown role too, until done
	acceptors  map[Key]*Group
	other      snapshot.Other
	states     [tcp.NumStates]uint32
	self       []tcp.Endpoint // of connections with themselves
	draw       uint32
	fan        *fan
	// makerOf tells who made a time-wait socket, nil where nothing was traced.
	makerOf func(*tcp.Socket) (Maker, bool)
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

// fans are reused: one is half a megabyte.
var fans = sync.Pool{New: func() any { return new(fan) }}

// NewSorter begins to sort the sockets of a namespace, which is at that place in the index.
// At most capacity groups are kept; twice as many are counted meanwhile, and the smaller half
// is discarded whenever that is reached: a culprit that comes last grows faster than it is
// discarded. makerOf tells who made a time-wait socket; it may be nil.
func NewSorter(
	index *Index, namespace int, settings snapshot.Settings, capacity int, makerOf func(*tcp.Socket) (Maker, bool),
) *Sorter {
	ports, known := settings.PortRange()
	if !known {
		ports = tcp.PortRange{Low: 1, High: 0} // holds no port
	}
	f := fans.Get().(*fan)
	*f = fan{}
	return &Sorter{
		index:      index,
		namespace:  namespace,
		ports:      ports,
		capacity:   capacity,
		connectors: map[Key]*Group{},
		acceptors:  map[Key]*Group{},
		draw:       1,
		makerOf:    makerOf,
		youngAbove: youngAbove(settings),
		fan:        f,
	}
}

// Add counts one socket; listeners and unconnected sockets are not for it.
func (so *Sorter) Add(s *tcp.Socket) {
	so.states[s.State]++
	// xorshift32 (Marsaglia 2003): the sample needs no better chance.
	so.draw ^= so.draw << 13
	so.draw ^= so.draw >> 17
	so.draw ^= so.draw << 5
	port := placeOf(so.ports, s.LocalPort)
	if s.LocalPort == s.RemotePort && s.Local == s.Remote && len(so.self) < selfTold {
		so.self = append(so.self, tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort})
	}

	asConnector := ConnectorKey(s)
	if so.index.ports[s.RemotePort] {
		if g := so.connectors[asConnector]; g != nil && g.Rule == tcp.ByRemoteListener {
			g.add(s, port, so.draw)
			return
		} else if g == nil && so.index.Remote(so.namespace, s.Remote, s.RemotePort) {
			so.insert(so.connectors, asConnector, s, tcp.Connector, tcp.ByRemoteListener).add(s, port, so.draw)
			return
		}
	}
	asAcceptor := AcceptorKey(s)
	if so.index.ports[s.LocalPort] {
		if g := so.acceptors[asAcceptor]; g != nil {
			g.add(s, port, so.draw)
			return
		} else if so.index.Covers(so.namespace, s.Local, s.LocalPort) {
			so.insert(so.acceptors, asAcceptor, s, tcp.Acceptor, tcp.ByLocalListener).add(s, port, so.draw)
			return
		}
	}

	so.fan.local[s.LocalPort]++
	so.fan.remote[s.RemotePort]++
	if local, remote := so.fan.local[s.LocalPort], so.fan.remote[s.RemotePort]; local >= fanOutSure && local >= fanOut*remote {
		g := so.acceptors[asAcceptor]
		if g == nil {
			g = so.insert(so.acceptors, asAcceptor, s, tcp.Acceptor, tcp.ByFanOut)
		}
		g.add(s, port, so.draw)
		return
	}
	g := so.connectors[asConnector]
	if g == nil {
		g = so.insert(so.connectors, asConnector, s, tcp.RoleUnknown, tcp.ByNoRule)
	}
	g.add(s, port, so.draw)
}

func (so *Sorter) insert(into map[Key]*Group, key Key, s *tcp.Socket, role tcp.Role, rule tcp.RoleRule) *Group {
	if len(so.connectors)+len(so.acceptors) >= 2*so.capacity {
		so.discard()
	}
	g := &Group{Role: role, Rule: rule, Key: key, localPort: s.LocalPort, makerOf: so.makerOf, youngAbove: so.youngAbove}
	if role == tcp.Acceptor {
		g.clients = newClients()
	}
	into[key] = g
	return g
}

// discard moves all but the largest groups to other, until capacity is met.
func (so *Sorter) discard() {
	all := so.all()
	for _, g := range all[min(len(all), so.capacity):] {
		so.other.Groups++
		so.other.States.Add(tcp.StatesOf(g.States))
		if g.Role == tcp.Acceptor {
			delete(so.acceptors, g.Key)
		} else {
			delete(so.connectors, g.Key)
		}
	}
}

// all returns the groups in falling order of size, and in a fixed order among
// equals.
func (so *Sorter) all() []*Group {
	all := make([]*Group, 0, len(so.connectors)+len(so.acceptors))
	for _, g := range so.connectors {
		all = append(all, g)
	}
	for _, g := range so.acceptors {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *Group) int {
		return cmp.Or(
			cmp.Compare(b.Sockets, a.Sockets),
			slices.Compare(a.Local[:], b.Local[:]),
			slices.Compare(a.Remote[:], b.Remote[:]),
			cmp.Compare(a.Port, b.Port),
		)
	})
	return all
}

// Done settles the roles that only all sockets together show. The Sorter is of no more use.
func (so *Sorter) Done() Sorted {
	for key, g := range so.connectors {
		if g.Role != tcp.RoleUnknown {
			continue
		}
		local, remote := so.fan.local[g.localPort], so.fan.remote[key.Port]
		switch {
		case g.Sockets >= fanOut || remote >= fanOut*local:
			// Connections of one group share all but the local port, so that a group
			// of eight is a fan-out of eight to one by itself.
			g.Role, g.Rule = tcp.Connector, tcp.ByFanOut
		case local >= fanOut*remote && g.Sockets == 1:
			asAcceptor := Key{Local: key.Local, Port: g.localPort}
			into := so.acceptors[asAcceptor]
			if into == nil {
				into = &Group{Role: tcp.Acceptor, Rule: tcp.ByFanOut, Key: asAcceptor, clients: newClients()}
				so.acceptors[asAcceptor] = into
			}
			into.merge(g)
			delete(so.connectors, key)
		}
	}
	so.discard()
	fans.Put(so.fan)
	so.fan = nil
	out := Sorted{
		Groups: so.all(), States: tcp.StatesOf(so.states), SelfConnected: so.self,
		connectors: so.connectors, acceptors: so.acceptors,
	}
	if so.other.Groups > 0 {
		out.Other = &so.other
	}
	return out
}

// Sorted are the sockets of a namespace in their groups. Its zero value holds none.
type Sorted struct {
	Groups []*Group        // in falling order of their sockets
	States tcp.States      // of all sockets, those of Other too
	Other  *snapshot.Other // what did not fit, nil where all did
	// SelfConnected are the ends of connections whose two ends are one socket, the first 20.
	SelfConnected []tcp.Endpoint

	connectors, acceptors map[Key]*Group
}

// Connector is the group of that key that connected, or whose role is unknown; nil where there
// is none.
func (s *Sorted) Connector(k Key) *Group { return s.connectors[k] }

// Acceptor is the group of that key that accepted, nil where there is none.
func (s *Sorted) Acceptor(k Key) *Group { return s.acceptors[k] }

// Of is the group in which a socket was counted, nil where that was discarded.
func (s *Sorted) Of(socket *tcp.Socket) *Group {
	if g := s.connectors[ConnectorKey(socket)]; g != nil {
		return g
	}
	return s.acceptors[AcceptorKey(socket)]
}

// ConnectorKey is that of a socket that connected.
func ConnectorKey(s *tcp.Socket) Key { return Key{s.Local, s.Remote, s.RemotePort} }

// AcceptorKey is that of a socket that was accepted.
func AcceptorKey(s *tcp.Socket) Key { return Key{Local: s.Local, Port: s.LocalPort} }
