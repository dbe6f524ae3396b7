package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// pair is a connection that the test made, and which end closes it first.
func pair(t *testing.T, network, address string) (client, server *net.TCPConn, listener net.Listener) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("no %s here: %v", network, err)
	}
	t.Cleanup(func() { listener.Close() })
	c, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn), listener
}

// find polls until the dump holds a socket of these endpoints in that state.
func find(t *testing.T, r Request, local, remote netip.AddrPort, state tcp.State) tcp.Socket {
	t.Helper()
	conn, err := Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var found *tcp.Socket
		var others []tcp.State
		err := conn.Dump(context.Background(), r, func(s *tcp.Socket) {
			if s.LocalPort != local.Port() || s.Local.Netip() != local.Addr() || s.RemotePort != remote.Port() {
				return
			}
			if s.State == state && (s.State == tcp.Listen || s.Remote.Netip() == remote.Addr()) {
				copied := *s
				found = &copied
				return
			}
			others = append(others, s.State)
		})
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			return *found
		}
		if time.Now().After(deadline) {
			t.Fatalf("no socket %v → %v in %v; instead in %v", local, remote, state, others)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func inodeOf(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) }); err != nil {
		t.Fatal(err)
	}
	return uint32(stat.Ino)
}

func TestBothFamiliesInOnePass(t *testing.T) {
	for _, network := range []struct{ name, network, address string }{
		{"IPv4", "tcp4", "127.0.0.1:0"},
		{"IPv6", "tcp6", "[::1]:0"},
	} {
		t.Run(network.name, func(t *testing.T) {
			client, server, listener := pair(t, network.network, network.address)
			local, remote := addrPort(client.LocalAddr()), addrPort(client.RemoteAddr())

			established := find(t, Request{}, local, remote, tcp.Established)
			if want := inodeOf(t, client); established.Inode != want {
				t.Errorf("inode is %d, the descriptor's is %d", established.Inode, want)
			}
			if established.Cookie == 0 {
				t.Error("no cookie")
			}

			listening := find(t, Request{States: []tcp.State{tcp.Listen}}, addrPort(listener.Addr()), netip.AddrPort{}, tcp.Listen)
			if listening.SendQueue == 0 {
				t.Error("a listener without a backlog limit")
			}
			if isV6 := remote.Addr().Is6(); isV6 != (listening.V6Only != nil) {
				t.Errorf("v6only is %v for an IPv6 listener: %v", listening.V6Only, isV6)
			}

			client.Close()
			server.Close()
			timeWait := find(t, Request{States: []tcp.State{tcp.TimeWait}}, local, remote, tcp.TimeWait)
			if timeWait.Expires == 0 || timeWait.Expires > 60_000 {
				t.Errorf("%d ms left of a new TIME_WAIT, want 1 to 60,000", timeWait.Expires)
			}
			if timeWait.Inode != 0 {
				t.Errorf("a TIME_WAIT with inode %d: the kernel remembers no owner", timeWait.Inode)
			}
			if timeWait.Cookie != established.Cookie {
				t.Errorf("cookie %x became %x: the time-wait socket takes over a cookie that was handed out", established.Cookie, timeWait.Cookie)
			}
		})
	}
}

// A connection over an IPv6 socket to an IPv4 address is one between IPv4
// addresses.
func TestMappedAddressIsIPv4(t *testing.T) {
	client, server, listener := pair(t, "tcp", ":0") // dual-stack
	if !listener.Addr().(*net.TCPAddr).IP.IsUnspecified() {
		t.Fatal("not a wildcard listener")
	}
	client.Close()
	server.Close()
	c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addrPort(listener.Addr()).Port()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local, remote := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	got := find(t, Request{}, local, remote, tcp.Established)
	if !got.Local.Netip().Is4() || !got.Local.Loopback() {
		t.Errorf("the accepted end is at %v, want 127.0.0.1", got.Local.Netip())
	}
}

// close() turns a socket in FIN_WAIT2 into a time-wait socket, which sock_diag
// still shows in FIN_WAIT2; shutdown() does not.
func TestFinWait2ToldApart(t *testing.T) {
	orphan, _, _ := pair(t, "tcp4", "127.0.0.1:0")
	owned, _, _ := pair(t, "tcp4", "127.0.0.1:0")
	local, remote := addrPort(orphan.LocalAddr()), addrPort(orphan.RemoteAddr())
	orphan.Close()
	find(t, Request{States: []tcp.State{tcp.FinWait2TimeWait}}, local, remote, tcp.FinWait2TimeWait)

	if err := owned.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	find(t, Request{States: []tcp.State{tcp.FinWait2}}, addrPort(owned.LocalAddr()), addrPort(owned.RemoteAddr()), tcp.FinWait2)
}

func TestLastAckBoundsTheAgeOfCloseWait(t *testing.T) {
	client, server, _ := pair(t, "tcp4", "127.0.0.1:0")
	client.Close()
	local, remote := addrPort(server.LocalAddr()), addrPort(server.RemoteAddr())
	r := Request{States: []tcp.State{tcp.CloseWait}}
	if s := find(t, r, local, remote, tcp.CloseWait); s.LastAckReceived != -1 {
		t.Errorf("%d ms since the last ACK without having asked", s.LastAckReceived)
	}
	r.LastAck = true
	first := find(t, r, local, remote, tcp.CloseWait)
	deadline := time.Now().Add(10 * time.Second)
	for {
		now := find(t, r, local, remote, tcp.CloseWait)
		if first.LastAckReceived >= 0 && now.LastAckReceived > first.LastAckReceived {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last ACK came %d ms ago, and %d ms ago in the end", first.LastAckReceived, now.LastAckReceived)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCancelledDump(t *testing.T) {
	conn, err := Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, _, _ := pair(t, "tcp4", "127.0.0.1:0")
	_ = client
	ctx, cancel := context.WithCancel(context.Background())
	err = conn.Dump(ctx, Request{}, func(*tcp.Socket) { cancel() })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("dump that was cancelled while it ran: %v", err)
	}
	if err := conn.Dump(ctx, Request{}, func(*tcp.Socket) { t.Error("a socket after the end") }); !errors.Is(err, context.Canceled) {
		t.Errorf("dump that was cancelled before: %v", err)
	}
}

// message makes a netlink message of the dump with sequence number 1.
func message(kind uint16, body []byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint32(b[8:], 1)
	return append(b, body...)
}

func timeWaitMessage() []byte {
	body := make([]byte, messageSize)
	body[0], body[1], body[2] = unix.AF_INET, byte(tcp.TimeWait), byte(tcp.TimerTimeWait)
	binary.BigEndian.PutUint16(body[4:], 40000)
	binary.BigEndian.PutUint16(body[6:], 80)
	copy(body[8:], []byte{10, 0, 0, 1})
	copy(body[24:], []byte{10, 0, 0, 2})
	binary.NativeEndian.PutUint32(body[52:], 59_000)
	return message(uint16(tcpdiagGetsock), body)
}

// The kernel does not cut messages, a fault on the way would: the datagrams here
// are made by hand.
func TestCutMessages(t *testing.T) {
	whole := timeWaitMessage()
	for length := 1; length < len(whole); length++ {
		d := decoder{sequence: 1, visit: func(*tcp.Socket) { t.Errorf("a socket from %d of %d bytes", length, len(whole)) }}
		if _, err := d.datagram(whole[:length]); !errors.Is(err, errCut) {
			t.Errorf("%d of %d bytes: %v, want %v", length, len(whole), err, errCut)
		}
	}
}

func TestEndOfDump(t *testing.T) {
	failed := message(unix.NLMSG_DONE, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOMEM)+1))
	for _, test := range []struct {
		name     string
		datagram []byte
		sockets  int
		done     bool
		err      error
	}{
		{"more to come", timeWaitMessage(), 1, false, nil},
		{"done", append(timeWaitMessage(), message(unix.NLMSG_DONE, make([]byte, 4))...), 1, true, nil},
		{"done without a number, as old kernels say it", message(unix.NLMSG_DONE, nil), 0, true, nil},
		{"failed half way", append(timeWaitMessage(), failed...), 1, true, syscall.ENOMEM},
		{"overrun", message(unix.NLMSG_OVERRUN, nil), 0, true, errCut},
	} {
		t.Run(test.name, func(t *testing.T) {
			sockets := 0
			d := decoder{sequence: 1, visit: func(*tcp.Socket) { sockets++ }}
			done, err := d.datagram(test.datagram)
			if done != test.done || !errors.Is(err, test.err) || sockets != test.sockets {
				t.Errorf("done %v, %v, %d sockets; want %v, %v, %d", done, err, sockets, test.done, test.err, test.sockets)
			}
		})
	}

	// An answer to somebody else is passed over.
	d := decoder{sequence: 2, visit: func(*tcp.Socket) { t.Error("a socket of another dump") }}
	if done, err := d.datagram(append(timeWaitMessage(), failed...)); done || err != nil {
		t.Errorf("answer to another request: done %v, %v", done, err)
	}
}

func TestDecode(t *testing.T) {
	var got tcp.Socket
	d := decoder{sequence: 1, visit: func(s *tcp.Socket) { got = *s }}
	if _, err := d.datagram(timeWaitMessage()); err != nil {
		t.Fatal(err)
	}
	want := tcp.Socket{
		State: tcp.TimeWait,
		Local: netip.MustParseAddr("10.0.0.1").As16(), LocalPort: 40000,
		Remote: netip.MustParseAddr("10.0.0.2").As16(), RemotePort: 80,
		Timer: tcp.TimerTimeWait, Expires: 59_000, LastAckReceived: -1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func FuzzDatagram(f *testing.F) {
	f.Add(timeWaitMessage())
	f.Add(append(timeWaitMessage(), message(unix.NLMSG_DONE, make([]byte, 4))...))
	listener := timeWaitMessage()
	listener[unix.NLMSG_HDRLEN+1], listener[unix.NLMSG_HDRLEN+2] = byte(tcp.Listen), 0
	listener = append(listener, 5, 0, attrV6Only, 0, 1, 0, 0, 0)
	binary.NativeEndian.PutUint32(listener, uint32(len(listener)))
	f.Add(listener)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		d := decoder{sequence: 1, visit: func(s *tcp.Socket) {
			if s.Local.Netip().Is4In6() {
				t.Error("an address is IPv4 in IPv6")
			}
		}}
		_, _ = d.datagram(datagram)
	})
}
