package stage

import (
	"context"
	"slices"

	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sockdiag"
	"linger/internal/tcp"
)

// Each tells of each of a node's sockets in one of the states, of all where none is given.
func (n *Node) Each(ctx context.Context, tell func(*tcp.Socket), states ...tcp.State) error {
	c, err := sockdiag.Dial(n.netns.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Dump(ctx, sockdiag.Request{States: states}, func(s *tcp.Socket) {
		// The kernel knows FIN_WAIT2 and its time-wait socket by one number.
		if len(states) == 0 || slices.Contains(states, s.State) {
			tell(s)
		}
	})
}

// Count counts a node's sockets in one of the states. A service's port limits them to
// those at either end of it; 0 does not.
func (n *Node) Count(ctx context.Context, port uint16, states ...tcp.State) (total int, err error) {
	err = n.Each(ctx, func(s *tcp.Socket) {
		if port == 0 || s.LocalPort == port || s.RemotePort == port {
			total++
		}
	}, states...)
	return total, err
}

// SourcePorts counts the ports from which a node's connections and what is left of them
// go to a service's port or to the one after it.
func (n *Node) SourcePorts(ctx context.Context, port uint16) (int, error) {
	ports := map[uint16]bool{}
	err := n.Each(ctx, func(s *tcp.Socket) {
		if s.RemotePort == port || s.RemotePort == port+1 {
			ports[s.LocalPort] = true
		}
	})
	return len(ports), err
}

// Counter is one of the node's counters, as nstat(8) names it.
func (n *Node) Counter(name string) (float64, error) {
	all, err := n.Counters()
	return float64(all[name]), err
}

// Counters are those of the node, named as nstat names them.
func (n *Node) Counters() (c map[string]uint64, err error) {
	err = n.Do(func() error {
		c, err = procnet.ReadCounters()
		return err
	})
	return c, err
}
