package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Flags are the control bits of a TCP header (RFC 9293, 3.1).
type Flags uint8

// The bits that take part in opening, carrying and ending a connection.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// String names the flags that a reader of a ladder wants to see: PSH is none.
func (f Flags) String() string {
	var names []string
	for _, n := range []struct {
		flag Flags
		name string
	}{{SYN, "SYN"}, {FIN, "FIN"}, {RST, "RST"}, {ACK, "ACK"}} {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " ")
}

// Segment is a TCP segment of an IPv4 or IPv6 packet.
type Segment struct {
	Src, Dst netip.AddrPort
	Seq, Ack uint32
	Flags    Flags
	Window   uint16
	// TimeStamps are nil where the segment has none (RFC 7323).
	TimeStamps *TimeStamps
	Payload    []byte

	// What the wire knows of the segments before it in the same direction of the same
	// connection, which begins with a SYN.

	// Again tells that nothing in it is new: it was sent before.
	Again bool
	// AcksFIN tells that it acknowledges the other side's FIN.
	AcksFIN bool
	// SeqSinceSYN and AckSinceSYN count from the initial sequence numbers, if the wire
	// has seen them.
	SeqSinceSYN, AckSinceSYN uint32

	raw   []byte // Payload is part of it
	tcpAt int    // where the TCP header begins
	tsAt  int    // where TSval is, 0 without time stamps
}

// TimeStamps are TSval and TSecr.
type TimeStamps struct{ Value, Echo uint32 }

// length is how much of the sequence space the segment takes: its bytes, and one for
// SYN and FIN each.
func (s *Segment) length() uint32 {
	n := uint32(len(s.Payload))
	if s.Flags&SYN != 0 {
		n++
	}
	if s.Flags&FIN != 0 {
		n++
	}
	return n
}

// Packet is the whole packet, from its IP header on. It must not be changed.
func (s *Segment) Packet() []byte { return s.raw }

// errNotTCP is that of a packet that carries no whole TCP segment: ICMP, fragments.
var errNotTCP = errors.New("not a TCP segment")

const (
	protocolTCP   = 6
	ipv4Header    = 20
	ipv6Header    = 40
	tcpHeader     = 20
	optionNop     = 1
	optionEnd     = 0
	optionTS      = 8
	optionTSBytes = 10
)

// parse reads a packet, which it keeps. Errors wrap errNotTCP, or say what is wrong
// with it.
func parse(packet []byte) (Segment, error) {
	src, dst, at, end, err := parseIP(packet)
	if err != nil {
		return Segment{}, err
	}
	t := packet[at:end]
	if len(t) < tcpHeader {
		return Segment{}, fmt.Errorf("TCP header of %d bytes", len(t))
	}
	data := int(t[12]>>4) * 4
	if data < tcpHeader || data > len(t) {
		return Segment{}, fmt.Errorf("TCP header says %d bytes, segment has %d", data, len(t))
	}
	s := Segment{
		Src:     netip.AddrPortFrom(src, binary.BigEndian.Uint16(t[0:])),
		Dst:     netip.AddrPortFrom(dst, binary.BigEndian.Uint16(t[2:])),
		Seq:     binary.BigEndian.Uint32(t[4:]),
		Ack:     binary.BigEndian.Uint32(t[8:]),
		Flags:   Flags(t[13]) & (FIN | SYN | RST | PSH | ACK),
		Window:  binary.BigEndian.Uint16(t[14:]),
		Payload: t[data:],
		raw:     packet[:end],
		tcpAt:   at,
	}
	if o := timeStampsAt(t[tcpHeader:data]); o >= 0 {
		s.tsAt = at + tcpHeader + o
		s.TimeStamps = &TimeStamps{
			Value: binary.BigEndian.Uint32(packet[s.tsAt:]),
			Echo:  binary.BigEndian.Uint32(packet[s.tsAt+4:]),
		}
	}
	return s, nil
}

// parseIP finds the TCP segment of a packet: packet[at:end].
func parseIP(packet []byte) (src, dst netip.Addr, at, end int, err error) {
	if len(packet) == 0 {
		return src, dst, 0, 0, errors.New("empty packet")
	}
	switch packet[0] >> 4 {
	case 4:
		if len(packet) < ipv4Header {
			return src, dst, 0, 0, fmt.Errorf("IPv4 packet of %d bytes", len(packet))
		}
		at, end = int(packet[0]&0xf)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if at < ipv4Header || end < at || end > len(packet) {
			return src, dst, 0, 0, fmt.Errorf("IPv4 header of %d bytes, packet of %d of which %d came", at, end, len(packet))
		}
		const moreFragmentsOrOffset = 0x3fff
		if packet[9] != protocolTCP || binary.BigEndian.Uint16(packet[6:])&moreFragmentsOrOffset != 0 {
			return src, dst, 0, 0, errNotTCP
		}
		return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), at, end, nil
	case 6:
		if len(packet) < ipv6Header {
			return src, dst, 0, 0, fmt.Errorf("IPv6 packet of %d bytes", len(packet))
		}
		at, end = ipv6Header, ipv6Header+int(binary.BigEndian.Uint16(packet[4:]))
		if end > len(packet) {
			return src, dst, 0, 0, fmt.Errorf("IPv6 packet of %d bytes of which %d came", end, len(packet))
		}
		// The kernel puts no extension header before a TCP header of its own.
		if packet[6] != protocolTCP {
			return src, dst, 0, 0, errNotTCP
		}
		return netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), at, end, nil
	}
	return src, dst, 0, 0, fmt.Errorf("IP version %d", packet[0]>>4)
}

// timeStampsAt is where TSval is in a TCP header's options, -1 if nowhere.
func timeStampsAt(options []byte) int {
	for i := 0; i < len(options); {
		switch options[i] {
		case optionEnd:
			return -1
		case optionNop:
			i++
			continue
		}
		if i+1 >= len(options) {
			return -1
		}
		length := int(options[i+1])
		if length < 2 || i+length > len(options) {
			return -1
		}
		if options[i] == optionTS && length == optionTSBytes {
			return i + 2
		}
		i += length
	}
	return -1
}

// SetTimeStamps writes other time stamps into a segment that has some, and the
// checksum that goes with them.
func (s *Segment) SetTimeStamps(ts TimeStamps) {
	if s.TimeStamps == nil {
		return
	}
	s.TimeStamps = &ts
	binary.BigEndian.PutUint32(s.raw[s.tsAt:], ts.Value)
	binary.BigEndian.PutUint32(s.raw[s.tsAt+4:], ts.Echo)
	putChecksum(s.raw[s.tcpAt:], s.Src.Addr(), s.Dst.Addr())
}

const checksumAt = 16 // in a TCP header

func putChecksum(tcp []byte, src, dst netip.Addr) {
	tcp[checksumAt], tcp[checksumAt+1] = 0, 0
	binary.BigEndian.PutUint16(tcp[checksumAt:], ^checksum(tcp, src, dst))
}

// intact tells whether the checksum of the segment is right.
func (s *Segment) intact() bool {
	return checksum(s.raw[s.tcpAt:], s.Src.Addr(), s.Dst.Addr()) == 0xffff
}

// checksum is the folded sum over the pseudo header and the segment (RFC 9293, 3.1;
// RFC 8200, 8.1).
func checksum(tcp []byte, src, dst netip.Addr) uint16 {
	total := sum(0, src.AsSlice())
	total = sum(total, dst.AsSlice())
	total += protocolTCP + uint64(len(tcp))
	return fold(sum(total, tcp))
}

func sum(total uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		total += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		total += uint64(b[0]) << 8
	}
	return total
}

func fold(total uint64) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
