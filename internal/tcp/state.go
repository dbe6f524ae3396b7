// Package tcp holds the words that every other room uses: the state of a
// socket, its endpoints, the role of a host in a connection, ranges and sets of
// ports. It knows no kernel interface and computes nothing about a host.
package tcp

import "fmt"

// State is the state of a TCP socket. The numbers are the kernel's own
// (include/net/tcp_states.h), but for FinWait2TimeWait.
type State uint8

// The states of RFC 9293 §3.3.2 and the kernel's additions to them.
const (
	Established State = 1
	SynSent     State = 2
	SynRecv     State = 3
	FinWait1    State = 4
	FinWait2    State = 5
	TimeWait    State = 6
	Close       State = 7
	CloseWait   State = 8
	LastAck     State = 9
	Listen      State = 10
	Closing     State = 11
	// NewSynRecv is a request socket: a handshake not yet turned into a socket.
	NewSynRecv State = 12
	// BoundInactive is a socket that bound a port and neither listens nor
	// connects (sock_diag reports it from kernel 6.8 on).
	BoundInactive State = 13
	// FinWait2TimeWait is no kernel number: it is a time-wait socket that stands
	// in for an orphan in FIN_WAIT2 (net/ipv4/tcp_minisocks.c, tcp_time_wait). It
	// counts against tcp_max_tw_buckets, and its peer has not closed.
	FinWait2TimeWait State = 14

	// NumStates is one more than the largest State: the length of an array that
	// is indexed by State.
	NumStates = 15
)

var stateNames = [NumStates]string{
	Established:      "ESTABLISHED",
	SynSent:          "SYN_SENT",
	SynRecv:          "SYN_RECV",
	FinWait1:         "FIN_WAIT1",
	FinWait2:         "FIN_WAIT2",
	TimeWait:         "TIME_WAIT",
	Close:            "CLOSE",
	CloseWait:        "CLOSE_WAIT",
	LastAck:          "LAST_ACK",
	Listen:           "LISTEN",
	Closing:          "CLOSING",
	NewSynRecv:       "NEW_SYN_RECV",
	BoundInactive:    "BOUND_INACTIVE",
	FinWait2TimeWait: "FIN_WAIT2_TIME_WAIT",
}

// String returns the kernel's name of the state, without its TCP_ prefix.
func (s State) String() string {
	if s < NumStates && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE_%d", uint8(s))
}

// parseState is the inverse of String.
func parseState(text string) (State, error) {
	for s, name := range stateNames {
		if name != "" && name == text {
			return State(s), nil
		}
	}
	return 0, fmt.Errorf("unknown TCP state %q", text)
}

// Live tells whether the state is that of a connection which a program or the
// kernel still carries as a full socket or a request: it takes a source port
// and cannot be taken over. Time-wait sockets, listeners and unconnected
// sockets are not live.
func (s State) Live() bool {
	switch s {
	case Established, SynSent, SynRecv, FinWait1, FinWait2, CloseWait, LastAck, Closing, NewSynRecv:
		return true
	}
	return false
}

// States counts sockets by state. In JSON it is an object that names only the
// states which occur.
type States [NumStates]int

// StatesOf are counts as they are kept while sockets are read, in half of the memory.
func StatesOf(counts [NumStates]uint32) (states States) {
	for s, n := range counts {
		states[s] = int(n)
	}
	return states
}

// Total is the number of sockets in all states.
func (c States) Total() int {
	total := 0
	for _, n := range c {
		total += n
	}
	return total
}

// Live is the number of sockets in states that are Live.
func (c States) Live() int {
	live := 0
	for s, n := range c {
		if State(s).Live() {
			live += n
		}
	}
	return live
}

// TimeWaitSockets is the number of time-wait sockets in either substate: what
// the kernel counts against tcp_max_tw_buckets and calls tw in sockstat.
func (c States) TimeWaitSockets() int {
	return c[TimeWait] + c[FinWait2TimeWait]
}

// Add adds the counts of other.
func (c *States) Add(other States) {
	for s, n := range other {
		c[s] += n
	}
}
