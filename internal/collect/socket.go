package collect

import (
	"context"
	"slices"
	"sync"

	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// maxGroupsOfHost is how many groups a snapshot keeps of all namespaces, but for
// minGroups of each.
const maxGroupsOfHost = 8192

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

// fans are reused: one is half a megabyte.
var fans = sync.Pool{New: func() any { return new(fan) }}

// readSockets reads the connections of a namespace and gathers them into groups.
func (r *reading) readSockets(ctx context.Context, ns *namespace, room *groupRoom) {
	if ns.sockets == nil {
		return
	}
	ports, known := ns.facts.Settings.PortRange()
	if !known {
		ports = tcp.PortRange{Low: 1, High: 0} // holds no port
	}
	f := fans.Get().(*fan)
	defer fans.Put(f)
	capacity := room.take()
	gr := newGrouper(r.index, ns.index, ports, capacity, f)
	gr.makerOf = r.makersOf(ns)
	gr.youngAbove = youngAbove(ns.facts.Settings)
	err := ns.sockets.Dump(ctx, sockdiag.Request{States: connections}, gr.add)
	ns.groups = gr.done()
	ns.connectors, ns.acceptors = gr.connectors, gr.acceptors
	room.giveBack(capacity - len(ns.groups))

	ns.facts.States.Add(widen(gr.states))
	ns.facts.SelfConnected = gr.self
	if gr.other.Groups > 0 {
		ns.facts.Other = &snapshot.Other{Groups: gr.other.Groups, States: gr.other.States}
	}
	ns.facts.SocketsRead, ns.facts.SocketsComplete = true, err == nil
	if err == nil && ns.portsScarce(ports) {
		err = ns.readBoundPorts(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.gap(ns.label(), "some of the sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
	}
}

// portsScarce tells whether any connector uses half of the source ports or more.
func (ns *namespace) portsScarce(ports tcp.PortRange) bool {
	return slices.ContainsFunc(ns.groups, func(g *group) bool {
		return g.role != tcp.Acceptor && 2*widen(g.inRange).Total() >= ports.Size()
	})
}

// readBoundPorts reads the ports that are bound and not in use yet. It is left
// for when ports are scarce: the kernel looks for them among all bound sockets,
// those in TIME_WAIT included (inet_diag_dump_icsk), which takes as long as to
// read these.
func (ns *namespace) readBoundPorts(ctx context.Context) error {
	var bound []uint16
	err := ns.sockets.Dump(ctx, sockdiag.Request{States: []tcp.State{tcp.BoundInactive}}, func(s *sockdiag.Socket) {
		ns.facts.States[s.State]++
		bound = append(bound, s.LocalPort)
	})
	ns.facts.BoundPorts = tcp.PortSetOf(bound...)
	return err
}

// groupOf finds the group that a socket was counted in, nil where that was
// folded.
func (ns *namespace) groupOf(s *sockdiag.Socket) *group {
	if g := ns.connectors[groupKey{s.Local, s.Remote, s.RemotePort}]; g != nil {
		return g
	}
	return ns.acceptors[groupKey{local: s.Local, port: s.LocalPort}]
}
