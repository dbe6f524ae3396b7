package cases

import (
	"errors"

	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/setting"
)

// masqueraded are two clients behind a NAT, and a server: four nodes and three wires.
type masqueraded struct {
	*stage.Topology
	first, second, nat, server *stage.Node
	// toSecond is the wire between the second client and the NAT, toServer the one
	// between the NAT and the server.
	toSecond, toServer *wire.Wire
}

// newMasqueraded makes the nodes. What leaves the NAT for the server has the NAT's
// address, by a real masquerade of nftables.
func newMasqueraded(on stage.Wiring) (*masqueraded, error) {
	topology, wires, err := stage.NewRouted(on, []string{"first client", "second client"}, "nat", "server")
	if err != nil {
		return nil, err
	}
	nodes := topology.Nodes
	t := &masqueraded{
		Topology: topology, first: nodes[0], second: nodes[1], nat: nodes[2], server: nodes[3],
		toSecond: wires[1], toServer: wires[2],
	}
	for _, n := range []*stage.Node{t.first, t.second} {
		// Time stamps of the plain clock, without an offset for each connection, as
		// kernels before 4.10 sent them.
		if err := n.Set(setting.Timestamps, "2"); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	if err := t.nat.Masquerade(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// shiftClock makes the clock of a wire's left end go after by ms milliseconds, as if that host had
// been started later: its time stamps are changed on the way out, and back again on
// the way in.
func shiftClock(w *wire.Wire, ms uint32) {
	stamped := func(s *wire.Segment) bool { return s.TimeStamps != nil }
	w.SetRules(
		wire.Rule{Match: wire.Match{From: wire.Left, Where: stamped}, Edit: func(s *wire.Segment) {
			s.SetTimeStamps(wire.TimeStamps{Value: s.TimeStamps.Value - ms, Echo: s.TimeStamps.Echo})
		}},
		wire.Rule{Match: wire.Match{From: wire.Right, Where: stamped}, Edit: func(s *wire.Segment) {
			s.SetTimeStamps(wire.TimeStamps{Value: s.TimeStamps.Value, Echo: s.TimeStamps.Echo + ms})
		}},
	)
}
