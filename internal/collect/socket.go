package collect

import (
	"context"
	"slices"
	"sync"

	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// Sizes that bound the memory of a reading whatever the number of sockets. A
// group takes about half a kilobyte.
const (
	// maxGroups is how many groups one namespace keeps.
	maxGroups = 4096
	// minGroups is kept of each namespace even where others took all the room.
	minGroups = 64
	// maxGroupsOfHost is how many groups a snapshot keeps of all namespaces, but for
	// minGroups of each.
	maxGroupsOfHost = 8192
)

// groupRoom shares out maxGroupsOfHost among namespaces, first come first
// served.
type groupRoom struct {
	mu   sync.Mutex
	free int
}

func (g *groupRoom) take() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := max(minGroups, min(maxGroups, g.free))
	g.free -= n
	return n
}

func (g *groupRoom) giveBack(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += n
}

// connections are the states of sockets that belong to groups.
var connections = append([]tcp.State{tcp.TimeWait, tcp.FinWait2TimeWait}, liveStates...)

var liveStates = []tcp.State{
	tcp.Established, tcp.SynSent, tcp.SynRecv, tcp.FinWait1, tcp.FinWait2,
	tcp.CloseWait, tcp.LastAck, tcp.Closing, tcp.NewSynRecv,
}

// readSockets reads the connections of a namespace and gathers them into groups.
func (r *reading) readSockets(ctx context.Context, ns *namespace, room *groupRoom) {
	if !ns.connected {
		return
	}
	var err error
	if ns.still {
		ns.sorted = ns.walked.sorted
	} else {
		capacity := room.take()
		sorter := group.NewSorter(r.index, ns.index, ns.facts.Settings, capacity, r.makersOf(ns))
		err = ns.dump(ctx, sockdiag.Request{States: connections}, sorter.Add)
		ns.sorted = sorter.Done()
		room.giveBack(capacity - len(ns.sorted.Groups))
		defer func() { ns.walked = ns.walkOf(r.snapshot.TakenAt) }()
	}

	ns.facts.States.Add(ns.sorted.States)
	ns.facts.SelfConnected, ns.facts.Other = ns.sorted.SelfConnected, ns.sorted.Other
	ns.facts.SocketsRead, ns.facts.SocketsComplete = true, err == nil
	if ports, known := ns.facts.Settings.PortRange(); err == nil && (!known || ns.portsScarce(ports)) {
		err = ns.readBoundPorts(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.gap(ns.label(), "some of the sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
	}
}

// portsScarce tells whether any connector uses half of the source ports or more.
func (ns *namespace) portsScarce(ports tcp.PortRange) bool {
	return slices.ContainsFunc(ns.sorted.Groups, func(g *group.Group) bool {
		return g.Role != tcp.Acceptor && 2*tcp.StatesOf(g.InRange).Total() >= ports.Size()
	})
}

// readBoundPorts reads the ports that are bound and not in use yet. It is left
// for when ports are scarce: the kernel looks for them among all bound sockets,
// those in TIME_WAIT included (inet_diag_dump_icsk), which takes as long as to
// read these.
func (ns *namespace) readBoundPorts(ctx context.Context) error {
	var bound []uint16
	err := ns.dump(ctx, sockdiag.Request{States: []tcp.State{tcp.BoundInactive}}, func(s *tcp.Socket) {
		ns.facts.States[s.State]++
		bound = append(bound, s.LocalPort)
	})
	ns.facts.BoundPorts = tcp.PortSetOf(bound...)
	return err
}
