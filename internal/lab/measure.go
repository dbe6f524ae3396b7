package lab

import (
	"context"

	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sockdiag"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// count counts a node's sockets in one of the states. A service's port limits them to
// those at either end of it; 0 does not.
func (n *Node) count(ctx context.Context, port uint16, states ...tcp.State) (int, error) {
	c, err := sockdiag.Dial(n.netns.FD())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	total := 0
	wanted := map[tcp.State]bool{}
	for _, s := range states {
		wanted[s] = true
	}
	err = c.Dump(ctx, sockdiag.Request{States: states}, func(s *sockdiag.Socket) {
		if wanted[s.State] && (port == 0 || s.LocalPort == port || s.RemotePort == port) {
			total++
		}
	})
	return total, err
}

// sourcePorts counts the ports from which a node's connections and what is left of them
// go to a service's port or to the one after it.
func (n *Node) sourcePorts(ctx context.Context, port uint16) (int, error) {
	c, err := sockdiag.Dial(n.netns.FD())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ports := map[uint16]bool{}
	err = c.Dump(ctx, sockdiag.Request{}, func(s *sockdiag.Socket) {
		if s.RemotePort == port || s.RemotePort == port+1 {
			ports[s.LocalPort] = true
		}
	})
	return len(ports), err
}

// counter is one of the node's counters, as nstat(8) names it.
func (n *Node) counter(name string) (value float64, err error) {
	err = n.Do(func() error {
		all, err := procnet.ReadCounters()
		value = float64(all[name])
		return err
	})
	return value, err
}

// recordStates records how many sockets of a service's port each node holds in a
// state, when nothing moves any more.
func (t *Trial) recordStates(ctx context.Context, port uint16, state tcp.State, at map[string]*Node) error {
	for quantity, node := range at {
		n, err := node.count(ctx, port, state)
		if err != nil {
			return err
		}
		t.Record(quantity, float64(n))
	}
	return nil
}

// Quantities that several experiments share.
var (
	failures = proof.Quantity{
		Name: "failed", Title: "connects that failed", Unit: "connects", Better: proof.Less,
	}
	noPort    = proof.Quantity{Name: "EADDRNOTAVAIL", Title: "of them EADDRNOTAVAIL", Unit: "connects"}
	bindInUse = proof.Quantity{Name: "EADDRINUSE", Title: "of them EADDRINUSE", Unit: "connects"}
	// What connect() says where SO_SNDTIMEO has run out (socket(7)).
	timedOut  = proof.Quantity{Name: "EINPROGRESS", Title: "of them without an answer in time", Unit: "connects"}
	succeeded = proof.Quantity{Name: "opened", Title: "connects that succeeded", Unit: "connects"}
	rate      = proof.Quantity{Name: "per_second", Title: "connects that succeeded each second", Unit: "connects/s"}
	portsUsed = proof.Quantity{Name: "ports", Title: "source ports in use", Unit: "ports"}

	clientHolds = proof.Quantity{Name: "client_time_wait", Title: "TIME_WAIT at the client", Unit: "sockets"}
	serverHolds = proof.Quantity{Name: "server_time_wait", Title: "TIME_WAIT at the service", Unit: "sockets"}
)

// less makes a quantity one that a remedy lowers.
func less(q proof.Quantity) proof.Quantity {
	q.Better = proof.Less
	return q
}

// record keeps what became of connects.
func (t *Trial) record(d Dialed) {
	t.Record("failed", float64(d.NoPort+d.Failed))
	for _, q := range []proof.Quantity{noPort, bindInUse, timedOut} {
		t.Record(q.Name, float64(d.Errnos[q.Name]))
	}
	if d.Seconds > 0 {
		t.Record(rate.Name, float64(d.Opened)/d.Seconds)
	}
	t.Record("opened", float64(d.Opened))
}

// why adds the mechanism, in a sentence.
func why(a proof.Arm, note string) proof.Arm {
	a.Note = note
	return a
}

// base, remedy, folklore and observe make arms.
func base(title string, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: "base", Title: title, Within: within}
}

func remedy(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Remedy, Expect: expect, Within: within}
}

func folklore(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Folklore, Expect: expect, Within: within}
}

func observe(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Observation, Expect: expect, Within: within}
}

// turning says what an arm sets: a sysctl without its directories, an option of a socket, a
// command.
func turning(knob string, a proof.Arm) proof.Arm {
	a.Knob = knob
	return a
}

// againOverIPv6 is an arm that repeats another over IPv6.
func againOverIPv6(a proof.Arm) proof.Arm {
	a.OverIPv6 = true
	return a
}
