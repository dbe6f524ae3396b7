package group

import (
	"iter"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Key is what the connections of a group share. A connector's has the
// remote port, an acceptor's the local port and no remote address.
type Key struct {
	Local, Remote tcp.Addr
	Port          uint16
}

// Group is a snapshot.Group while it is counted, and what else its sockets tell.
type Group struct {
	Key
	Role    tcp.Role
	Rule    tcp.RoleRule
	Sockets int
	States  [tcp.NumStates]uint32
	// InRange are those whose source port lies in the range that connect() takes from.
	InRange [tcp.NumStates]uint32
	// OtherParity are those of them with a port that bind() prefers.
	OtherParity uint32
	// Inodes are of the live sockets.
	Inodes Sample
	// OtherParityInodes are of the live sockets among OtherParity, nil where there are none.
	OtherParityInodes *Sample
	// Makers are of the time-wait sockets whose makers were seen.
	Makers map[Maker]int

	// noFile and unanswered are few, but for a host in trouble.
	noFile, unanswered *[tcp.NumStates]uint32
	// youngFinWait2 are time-wait sockets in FIN_WAIT2 with more than youngAbove
	// milliseconds left.
	youngFinWait2, youngAbove uint32
	// localPort is that of the group's first socket.
	localPort uint16
	closes    *snapshot.CloseHistory
	clients   *clients // of an acceptor
	makerOf   func(*tcp.Socket) (Maker, bool)
}

// Maker is who closed connections first.
type Maker struct {
	Process string
	Cgroup  uint64
}

func (g *Group) add(s *tcp.Socket, port portPlace, draw uint32) {
	g.Sockets++
	g.States[s.State]++
	if port != portOutside {
		g.InRange[s.State]++
	}
	if port == portOtherParity {
		g.OtherParity++
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
		g.Inodes.add(s.Inode, draw)
		if port == portOtherParity {
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

func (g *Group) addOtherParity(inode, draw uint32) {
	if g.OtherParityInodes == nil {
		g.OtherParityInodes = &Sample{}
	}
	g.OtherParityInodes.add(inode, draw)
}

func (g *Group) made(m Maker, n int) {
	if g.Makers == nil {
		g.Makers = map[Maker]int{}
	}
	g.Makers[m] += n
}

// unansweredFrom is from how many segments or probes in a row on the peer counts
// as silent: one or two are lost on any network.
const unansweredFrom = 3

// portPlace is where a source port lies.
type portPlace uint8

const (
	portOutside    portPlace = iota // of the range
	portSameParity                  // as the low end of the range
	portOtherParity
)

func placeOf(ports tcp.PortRange, port uint16) portPlace {
	switch {
	case !ports.Contains(port):
		return portOutside
	case (port^ports.Low)&1 == 0:
		return portSameParity
	default:
		return portOtherParity
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
func (g *Group) merge(other *Group) {
	g.Sockets += other.Sockets
	for s := range other.States {
		g.States[s] += other.States[s]
		g.InRange[s] += other.InRange[s]
	}
	g.OtherParity += other.OtherParity
	g.youngFinWait2 += other.youngFinWait2
	for s := range other.States {
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
	for m, n := range other.Makers {
		g.made(m, n)
	}
	for i, inode := range other.Inodes.Inodes {
		g.Inodes.add(inode, uint32(i))
	}
	if other.OtherParityInodes != nil {
		for i, inode := range other.OtherParityInodes.Inodes {
			g.addOtherParity(inode, uint32(i))
		}
	}
	if g.clients != nil {
		g.clients.merge(other.Key.Remote, clientCount{
			sockets:  other.Sockets,
			timeWait: int(other.States[tcp.TimeWait]),
			finWait2: int(other.States[tcp.FinWait2] + other.States[tcp.FinWait2TimeWait]),
		})
	}
}

// ClosesGoOn tells whether any socket of the group entered TIME_WAIT in the last two
// seconds.
func (g *Group) ClosesGoOn() bool {
	return g.closes != nil && g.closes.PerSecond[0]+g.closes.PerSecond[1] > 0
}

// MayHaveClient tells whether an acceptor has connections of an address, or may have: of many
// clients not all are counted.
func (g *Group) MayHaveClient(addr tcp.Addr) bool {
	_, known := g.clients.byAddr[addr]
	return known || g.clients.discarded
}

// ClientsInTimeWait are an acceptor's counted clients, each with how many of its connections
// are in TIME_WAIT here.
func (g *Group) ClientsInTimeWait() iter.Seq2[tcp.Addr, int] {
	return func(yield func(tcp.Addr, int) bool) {
		for addr, n := range g.clients.byAddr {
			if !yield(addr, n.timeWait) {
				return
			}
		}
	}
}

// Snapshot is what is told of the group, without its owners and its other end.
func (g *Group) Snapshot() snapshot.Group {
	out := snapshot.Group{
		Role:    g.Role,
		Rule:    g.Rule,
		Local:   tcp.Endpoint{Addr: g.Local.Netip()},
		Remote:  tcp.Endpoint{Addr: g.Remote.Netip(), Port: g.Port},
		States:  tcp.StatesOf(g.States),
		InRange: tcp.StatesOf(g.InRange),

		OtherParity:   int(g.OtherParity),
		YoungFinWait2: int(g.youngFinWait2),
	}
	if g.closes != nil {
		closes := *g.closes
		out.Closes = &closes
	}
	if g.noFile != nil {
		out.NoFile = tcp.StatesOf(*g.noFile)
	}
	if g.unanswered != nil {
		out.Unanswered = tcp.StatesOf(*g.unanswered)
	}
	if g.Role == tcp.Acceptor {
		out.Local.Port, out.Remote = g.Port, tcp.Endpoint{}
		out.Clients, out.ClientsComplete = g.clients.busiest()
	}
	return out
}
