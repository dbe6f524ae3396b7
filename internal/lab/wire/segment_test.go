package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// A segment of 4 bytes that Linux sent over loopback, as tcpdump showed it.
var captured = []byte{
	0x45, 0, 0, 0x38, 0xb7, 0x9b, 0x40, 0, 0x40, 6, 0x85, 0x22, 127, 0, 0, 1, 127, 0, 0, 1, // IP
	0x9c, 0x40, 0x1f, 0x90, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x80, 0x18, 2, 0, 0, 0, 0, 0, // TCP
	1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 5, // time stamps
	'p', 'i', 'n', 'g',
}

func TestParse(t *testing.T) {
	s, err := parse(bytes.Clone(captured))
	if err != nil {
		t.Fatal(err)
	}
	want := Segment{
		Src: netip.MustParseAddrPort("127.0.0.1:40000"), Dst: netip.MustParseAddrPort("127.0.0.1:8080"),
		Seq: 0x12345678, Ack: 0x9abcdef0, Flags: PSH | ACK, Window: 512,
		TimeStamps: &TimeStamps{7, 5}, Payload: []byte("ping"),
	}
	if diff := cmp.Diff(want, s, cmpopts.IgnoreUnexported(Segment{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("unexpected segment (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	udp := bytes.Clone(captured)
	udp[9] = 17
	fragment := bytes.Clone(captured)
	fragment[7] = 10
	for name, packet := range map[string][]byte{"UDP": udp, "a fragment": fragment} {
		if _, err := parse(packet); !errors.Is(err, errNotTCP) {
			t.Errorf("%s: %v, want errNotTCP", name, err)
		}
	}
	for n := range captured {
		if _, err := parse(captured[:n]); err == nil {
			t.Errorf("read %d of %d bytes", n, len(captured))
		}
	}
}

func segments() *rapid.Generator[Segment] {
	return rapid.Custom(func(t *rapid.T) Segment {
		family := rapid.SampledFrom([]int{4, 16}).Draw(t, "family")
		address := func(name string) netip.AddrPort {
			a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), family, family).Draw(t, name))
			return netip.AddrPortFrom(a, rapid.Uint16().Draw(t, name+" port"))
		}
		s := Segment{
			Src: address("src"), Dst: address("dst"), Seq: rapid.Uint32().Draw(t, "seq"), Ack: rapid.Uint32().Draw(t, "ack"),
			Flags: Flags(rapid.IntRange(0, 31).Draw(t, "flags")), Window: rapid.Uint16().Draw(t, "window"),
			Payload: rapid.SliceOfN(rapid.Byte(), 0, 1400).Draw(t, "payload"),
		}
		if rapid.Bool().Draw(t, "has time stamps") {
			s.TimeStamps = &TimeStamps{rapid.Uint32().Draw(t, "value"), rapid.Uint32().Draw(t, "echo")}
		}
		return s
	})
}

// build makes the packet of a segment: addresses, ports, numbers, flags, window, time
// stamps and payload; a SYN also offers a maximum segment size of 1,220 bytes, which
// fits IPv6 everywhere.
func build(s Segment) []byte {
	var options []byte
	if s.Flags&SYN != 0 {
		options = append(options, 2, 4, 1220>>8, 1220&0xff)
	}
	if s.TimeStamps != nil {
		options = append(options, optionNop, optionNop, optionTS, optionTSBytes)
		options = binary.BigEndian.AppendUint32(options, s.TimeStamps.Value)
		options = binary.BigEndian.AppendUint32(options, s.TimeStamps.Echo)
	}
	length := tcpHeader + len(options) + len(s.Payload)
	src, dst := s.Src.Addr(), s.Dst.Addr()
	var packet []byte
	if src.Is4() {
		packet = make([]byte, ipv4Header, ipv4Header+length)
		packet[0] = 4<<4 | ipv4Header/4
		binary.BigEndian.PutUint16(packet[2:], uint16(ipv4Header+length))
		packet[6] = 0x40 // do not fragment
		packet[8], packet[9] = 64, protocolTCP
		copy(packet[12:], src.AsSlice())
		copy(packet[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(packet[10:], ^fold(sum(0, packet)))
	} else {
		packet = make([]byte, ipv6Header, ipv6Header+length)
		packet[0] = 6 << 4
		binary.BigEndian.PutUint16(packet[4:], uint16(length))
		packet[6], packet[7] = protocolTCP, 64
		copy(packet[8:], src.AsSlice())
		copy(packet[24:], dst.AsSlice())
	}
	at := len(packet)
	packet = binary.BigEndian.AppendUint16(packet, s.Src.Port())
	packet = binary.BigEndian.AppendUint16(packet, s.Dst.Port())
	packet = binary.BigEndian.AppendUint32(packet, s.Seq)
	packet = binary.BigEndian.AppendUint32(packet, s.Ack)
	packet = append(packet, byte((tcpHeader+len(options))/4)<<4, byte(s.Flags))
	packet = binary.BigEndian.AppendUint16(packet, s.Window)
	packet = append(packet, 0, 0, 0, 0) // checksum, urgent pointer
	packet = append(append(packet, options...), s.Payload...)
	putChecksum(packet[at:], src, dst)
	return packet
}

func TestBuiltSegmentsParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := segments().Draw(t, "segment")
		got, err := parse(build(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Segment{}), cmpopts.EquateComparable(netip.AddrPort{}),
			cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("unexpected segment (-want +got):\n%s", diff)
		}
		if !got.intact() {
			t.Fatal("wrong checksum")
		}
		got.SetTimeStamps(TimeStamps{1, 2})
		if !got.intact() {
			t.Fatal("wrong checksum after other time stamps")
		}
		if got.TimeStamps != nil && len(got.Payload) > 0 {
			got.Payload[0]++
			if got.intact() {
				t.Fatal("a changed byte is not noticed")
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(captured)
	f.Add(build(Segment{Src: netip.MustParseAddrPort("[fd99::1]:1"), Dst: netip.MustParseAddrPort("[fd99::2]:2"), Flags: SYN}))
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, err := parse(packet)
		if err != nil {
			return
		}
		if len(s.Payload) > len(packet) || s.length() < uint32(len(s.Payload)) {
			t.Errorf("%d bytes of a packet of %d, length %d", len(s.Payload), len(packet), s.length())
		}
		s.intact()
		s.SetTimeStamps(TimeStamps{1, 2})
		if s.TimeStamps != nil && !s.intact() {
			t.Error("wrong checksum after other time stamps")
		}
		_ = s.label()
	})
}

func TestNoTUN(t *testing.T) {
	_, err := openTUN(t.TempDir()+"/tun", "wire0")
	if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) ||
		!bytes.Contains([]byte(err.Error()), []byte("modprobe tun")) {
		t.Errorf("without the device: %v", err)
	}
}

func TestLadderText(t *testing.T) {
	l := Ladder{Left: "client", Right: "server", Unrecorded: 3, Rungs: []Rung{
		{From: Left, Label: "SYN seq=0", Arrived: true},
		{At: 1_500_000, From: Right, Label: "SYN ACK seq=0 ack=1", Arrived: true},
		{At: 2_000_000, From: Left, Label: "ACK seq=1 ack=1", Note: "lost"},
		{At: 3_000_000, From: Right, Label: "FIN ACK seq=1 ack=1", Note: "held on the way"},
	}}
	want := `        ms  client                              server
       0.0  |-- SYN seq=0 -------------------------->|
       1.5  |<---------------- SYN ACK seq=0 ack=1 --|
       2.0  |-- ACK seq=1 ack=1 ----------X          |  lost
       3.0  |          X------ FIN ACK seq=1 ack=1 --|  held on the way
            and 3 segments more
`
	if diff := cmp.Diff(want, l.String()); diff != "" {
		t.Errorf("unexpected ladder (-want +got):\n%s", diff)
	}
}
