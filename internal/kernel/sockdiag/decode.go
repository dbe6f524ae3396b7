package sockdiag

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

const (
	messageSize = 72 // sizeof(struct inet_diag_msg)
	// infoLastAck is offsetof(struct tcp_info, tcpi_last_ack_recv).
	infoLastAck = 56
)

var v6only = [2]bool{false, true}

// decode reads a struct inet_diag_msg and the attributes behind it into a socket, of which it
// leaves nothing as it was.
func decode(s *tcp.Socket, b []byte) error {
	if len(b) < messageSize {
		return errCut
	}
	s.State = tcp.State(b[1])
	s.Timer = tcp.Timer(b[2])
	if s.Timer == tcp.TimerTimeWait && s.State == tcp.FinWait2 {
		s.State = tcp.FinWait2TimeWait
	}
	s.Unanswered = b[3]
	s.LocalPort = binary.BigEndian.Uint16(b[4:])
	s.RemotePort = binary.BigEndian.Uint16(b[6:])
	if b[0] == unix.AF_INET {
		s.Local, s.Remote = mapped(b[8:12]), mapped(b[24:28])
	} else {
		s.Local, s.Remote = tcp.Addr(b[8:24]), tcp.Addr(b[24:40])
	}
	s.Interface = binary.NativeEndian.Uint32(b[40:])
	s.Cookie = uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32
	s.Expires = binary.NativeEndian.Uint32(b[52:])
	s.ReceiveQueue = binary.NativeEndian.Uint32(b[56:])
	s.SendQueue = binary.NativeEndian.Uint32(b[60:])
	s.Inode = binary.NativeEndian.Uint32(b[68:])
	s.V6Only, s.LastAckReceived = nil, -1
	if s.State == tcp.TimeWait {
		return nil // nothing of use behind it, and there may be a million
	}
	return attributes(s, b[messageSize:])
}

func attributes(s *tcp.Socket, b []byte) error {
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

func mapped(v4 []byte) tcp.Addr {
	return tcp.Addr{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}
