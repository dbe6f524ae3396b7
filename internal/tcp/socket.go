package tcp

import (
	"net/netip"
	"strconv"
)

// Addr is an address as 16 bytes, IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2):
// a connection between IPv4 addresses is the same over a socket of either
// family, and as an array the address is a cheap part of a map's key.
type Addr [16]byte

// Netip converts the address for everything but counting; IPv4-mapped becomes
// IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Loopback tells whether the address is in 127.0.0.0/8 or is ::1.
func (a Addr) Loopback() bool { return a.Netip().IsLoopback() }

// Socket is one socket, as the kernel's sock_diag tells it. What another source does not tell
// is zero, LastAckReceived -1.
type Socket struct {
	State                 State
	Local, Remote         Addr
	LocalPort, RemotePort uint16
	// Timer is what runs, and Expires is in milliseconds until it is due: of a
	// time-wait socket until it is freed, 0 when it is past that time and waits for the
	// timer wheel.
	Timer   Timer
	Expires uint32
	// Unanswered is how often the same segment, or a probe, has been sent again since
	// the peer was last heard (idiag_retrans).
	Unanswered uint8
	// ReceiveQueue and SendQueue are in bytes; of a listener the connections that
	// wait for accept, and the most that may.
	ReceiveQueue, SendQueue uint32
	// Inode is of the socket's file, 0 where no process has one: time-wait
	// sockets, orphans, connections not accepted yet.
	Inode  uint32
	Cookie uint64
	// Interface is the index of the one that the socket is bound to, 0 for none.
	Interface uint32
	// V6Only is nil but for IPv6 listeners.
	V6Only *bool
	// LastAckReceived is in milliseconds, -1 where it was not asked for or the
	// socket is no full one.
	LastAckReceived int64
}

// Timer is the timer of a socket that is due next (idiag_timer, inet_sk_diag_fill of
// net/ipv4/inet_diag.c).
type Timer uint8

// The timers of a TCP socket. Every time-wait socket has its own, whichever state it
// stands in for.
const (
	timerRetransmit Timer = 1
	timerKeepalive  Timer = 2
	TimerTimeWait   Timer = 3
	timerProbe      Timer = 4 // of a window that the peer closed
)

// String names the timer; it is empty where none runs.
func (t Timer) String() string {
	switch t {
	case 0:
		return ""
	case timerRetransmit:
		return "retransmit"
	case timerKeepalive:
		return "keepalive"
	case TimerTimeWait:
		return "time-wait"
	case timerProbe:
		return "window-probe"
	default:
		return "timer " + strconv.Itoa(int(t))
	}
}
