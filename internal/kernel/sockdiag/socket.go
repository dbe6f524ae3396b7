package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"linger/internal/tcp"
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

// Socket is one row of a dump.
type Socket struct {
	State                 tcp.State
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
	timerTimeWait   Timer = 3
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
	case timerTimeWait:
		return "time-wait"
	case timerProbe:
		return "window-probe"
	default:
		return "timer " + strconv.Itoa(int(t))
	}
}

const (
	messageSize = 72 // sizeof(struct inet_diag_msg)
	// infoLastAck is offsetof(struct tcp_info, tcpi_last_ack_recv).
	infoLastAck = 56
)

var v6only = [2]bool{false, true}

// decode reads a struct inet_diag_msg and the attributes behind it.
func (s *Socket) decode(b []byte) error {
	if len(b) < messageSize {
		return errCut
	}
	s.State = tcp.State(b[1])
	s.Timer = Timer(b[2])
	if s.Timer == timerTimeWait && s.State == tcp.FinWait2 {
		s.State = tcp.FinWait2TimeWait
	}
	s.Unanswered = b[3]
	s.LocalPort = binary.BigEndian.Uint16(b[4:])
	s.RemotePort = binary.BigEndian.Uint16(b[6:])
	if b[0] == unix.AF_INET {
		s.Local, s.Remote = mapped(b[8:12]), mapped(b[24:28])
	} else {
		s.Local, s.Remote = Addr(b[8:24]), Addr(b[24:40])
	}
	s.Cookie = uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32
	s.Expires = binary.NativeEndian.Uint32(b[52:])
	s.ReceiveQueue = binary.NativeEndian.Uint32(b[56:])
	s.SendQueue = binary.NativeEndian.Uint32(b[60:])
	s.Inode = binary.NativeEndian.Uint32(b[68:])
	s.V6Only, s.LastAckReceived = nil, -1
	if s.State == tcp.TimeWait {
		return nil // nothing of use behind it, and there may be a million
	}
	return s.attributes(b[messageSize:])
}

func (s *Socket) attributes(b []byte) error {
	for len(b) >= unix.NLA_HDRLEN {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.NLA_HDRLEN || length > len(b) {
			return errCut
		}
		value := b[unix.NLA_HDRLEN:length]
		switch binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case attrV6Only:
			if len(value) < 1 {
				return errCut
			}
			s.V6Only = &v6only[min(value[0], 1)]
		case attrInfo:
			if len(value) >= infoLastAck+4 {
				s.LastAckReceived = int64(binary.NativeEndian.Uint32(value[infoLastAck:]))
			}
		}
		b = b[min(len(b), align(length)):]
	}
	return nil
}

func mapped(v4 []byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}
