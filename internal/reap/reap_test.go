package reap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/journal"
	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
	"linger/internal/kernel/sockdiag"
	"linger/internal/tcp"
)

// room is a namespace of the test's own, with services on its loopback.
type room struct {
	t      *testing.T
	handle *netns.Handle
}

func newRoom(t *testing.T) *room {
	t.Helper()
	h := netnstest.New(t)
	return &room{t, h}
}

func (p *room) path() string { return fmt.Sprintf("/proc/self/fd/%d", p.handle.FD()) }

func (p *room) do(fn func() error) {
	p.t.Helper()
	if err := p.handle.Do(fn); err != nil {
		p.t.Fatal(err)
	}
}

// listen serves on an address; what connects is accepted and handed on.
func (p *room) listen(address string) (at netip.AddrPort, accepted <-chan net.Conn) {
	p.t.Helper()
	var l net.Listener
	p.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	p.t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 4096)
	go func() {
		defer close(conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), conns
}

// dial connects, from a certain port unless that is 0.
func (p *room) dial(to netip.AddrPort, from uint16) net.Conn {
	p.t.Helper()
	var c net.Conn
	p.do(func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		if from != 0 {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), from))
			d.Control = func(_, _ string, raw syscall.RawConn) error {
				var err error
				return errors.Join(raw.Control(func(fd uintptr) {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				}), err)
			}
		}
		c, err = d.Dial("tcp", to.String())
		return err
	})
	p.t.Cleanup(func() { c.Close() })
	return c
}

// timeWait leaves n sockets in TIME_WAIT towards a service.
func (p *room) timeWait(to netip.AddrPort, accepted <-chan net.Conn, n int) {
	p.t.Helper()
	for range n {
		c := p.dial(to, 0)
		s := <-accepted
		c.Close()
		s.Close()
	}
	p.await(tcp.TimeWait, to, n)
}

// count is how many sockets are in a state towards an endpoint.
func (p *room) count(state tcp.State, to netip.AddrPort) int {
	p.t.Helper()
	conn, err := sockdiag.Dial(p.handle.FD())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	err = conn.Dump(p.t.Context(), sockdiag.Request{States: []tcp.State{state}}, func(s *tcp.Socket) {
		if s.State == state && s.Remote.Netip() == to.Addr() && s.RemotePort == to.Port() {
			n++
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *room) await(state tcp.State, to netip.AddrPort, n int) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := p.count(state, to)
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d sockets in %s towards %s, want %d", got, state, to, n)
		}
	}
}

func (p *room) find(s Selection) *Catch {
	p.t.Helper()
	s.Netns = p.path()
	if s.States == nil {
		s.States = []tcp.State{tcp.TimeWait}
	}
	c, err := Find(p.t.Context(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

func match(t *testing.T, text string) []tcp.Match {
	t.Helper()
	m, err := tcp.ParseMatch(text)
	if err != nil {
		t.Fatal(err)
	}
	return []tcp.Match{m}
}

// Only what matches goes, in either family; the journal tells before and after.
func TestReapTakesWhatMatches(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(loopback, func(t *testing.T) {
			p := newRoom(t)
			one, acceptedOne := p.listen(loopback)
			two, acceptedTwo := p.listen(loopback)
			p.timeWait(one, acceptedOne, 130) // more than two batches
			p.timeWait(two, acceptedTwo, 5)

			c := p.find(Selection{Remote: match(t, one.String())})
			if c.Len() != 130 || c.Matched != 130 {
				t.Fatalf("caught %d of %d, want 130", c.Len(), c.Matched)
			}
			want := tcp.Endpoint{Addr: one.Addr(), Port: one.Port()}
			if len(c.Groups) != 1 || c.Groups[0].Remote != want || c.Groups[0].Sockets != 130 {
				t.Errorf("groups %+v, want one of 130 towards %s", c.Groups, want)
			}
			dir := t.TempDir()
			result, err := c.Reap(t.Context(), Options{StateDir: dir})
			if err != nil || result.Reaped != 130 || result.Gone != 0 || result.Left != 0 {
				t.Fatalf("reaped %+v, %v", result, err)
			}
			p.await(tcp.TimeWait, one, 0)
			p.await(tcp.TimeWait, two, 5)

			records, err := journal.Read(dir)
			if err != nil || len(records) != 2 || records[0].Kind != begun || records[1].Kind != ended || records[0].ID != result.ID {
				t.Fatalf("journal %+v, %v", records, err)
			}
			var before struct {
				Sockets int
				States  []string
				Remote  []string
			}
			if err := json.Unmarshal(records[0].Detail, &before); err != nil || before.Sockets != 130 ||
				before.States[0] != "TIME_WAIT" || before.Remote[0] != one.String() {
				t.Errorf("the journal says %s, %v", records[0].Detail, err)
			}
			reaps, err := All(dir)
			if err != nil || len(reaps) != 1 || reaps[0].Sockets != 130 || reaps[0].Result == nil || reaps[0].Result.Reaped != 130 {
				t.Errorf("the history tells %+v, %v", reaps, err)
			}
		})
	}
}

// A connection that has the same four numbers by now is not the one that was found.
func TestATupleInUseAgainIsNotHit(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	const port = 50005
	first := p.dial(to, port)
	end := <-accepted
	first.Close()
	end.Close()
	p.await(tcp.TimeWait, to, 1)
	c := p.find(Selection{})
	again := p.dial(to, port) // takes the TIME_WAIT socket over: the port is bound
	peer := <-accepted
	result, err := c.Reap(t.Context(), Options{StateDir: t.TempDir()})
	if err != nil || result.Reaped != 0 || result.Gone != 1 {
		t.Errorf("reaped %+v, %v; want one that is gone", result, err)
	}
	if _, err := again.Write([]byte("x")); err != nil {
		t.Errorf("the new connection: %v", err)
	}
	if _, err := peer.Read(make([]byte, 1)); err != nil {
		t.Errorf("the new connection's other end: %v", err)
	}
}

// An established connection is ended with a reset, and both programs learn of it.
func TestReapEstablished(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	client := p.dial(to, 0)
	server := <-accepted
	c := p.find(Selection{States: []tcp.State{tcp.Established}, Remote: match(t, to.String())})
	if c.Len() != 1 || len(c.Groups) != 1 || len(c.Groups[0].Owners) != 1 {
		t.Fatalf("caught %+v, want the one connection with its process", c.Groups)
	}
	if result, err := c.Reap(t.Context(), Options{StateDir: t.TempDir()}); err != nil || result.Reaped != 1 {
		t.Fatalf("reaped %+v, %v", result, err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("this end reads %v, want ECONNABORTED", err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the other end reads %v, want ECONNRESET", err)
	}
}

// A leaked connection is aborted: the peer gets a reset, and the program keeps its
// descriptor, whose socket is no more.
func TestReapCloseWait(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	client := p.dial(to, 0)
	server := <-accepted
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	state := []tcp.State{tcp.CloseWait}
	var c *Catch
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c = p.find(Selection{States: state, Local: match(t, to.String())}); c.Len() == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sockets in CLOSE_WAIT, want the server's", c.Len())
		}
	}
	if result, err := c.Reap(t.Context(), Options{StateDir: t.TempDir()}); err != nil || result.Reaped != 1 {
		t.Fatalf("reaped %+v, %v", result, err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the peer reads %v, want ECONNRESET", err)
	}
	if c := p.find(Selection{States: state}); c.Len() != 0 {
		t.Errorf("%d sockets are in CLOSE_WAIT still", c.Len())
	}
	raw, err := server.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if _, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			t.Errorf("the descriptor: %v", err)
		}
	})
	if err != nil {
		t.Errorf("the descriptor: %v", err)
	}
}

// A process is chosen by its name or id; time-wait sockets have none.
func TestReapOfAProcess(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	p.dial(to, 0)
	<-accepted
	states := []tcp.State{tcp.Established, tcp.TimeWait}
	self := fmt.Sprint(unix.Getpid())
	if c := p.find(Selection{States: states, Process: self}); c.Len() != 2 {
		t.Errorf("%d sockets of this process, want both ends", c.Len())
	}
	if c := p.find(Selection{States: states, Process: "no-such-process"}); c.Len() != 0 {
		t.Errorf("%d sockets of a process that is not there", c.Len())
	}
}

// The most that may go are the oldest, and what is young stays.
func TestReapByAgeAndMost(t *testing.T) {
	p := newRoom(t)
	old, acceptedOld := p.listen("127.0.0.1:0")
	young, acceptedYoung := p.listen("127.0.0.1:0")
	p.timeWait(old, acceptedOld, 3)
	const age = time.Second
	for deadline := time.Now().Add(20 * time.Second); p.find(Selection{OlderThan: age}).Len() < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no socket got older than a second")
		}
	}
	p.timeWait(young, acceptedYoung, 3)
	c := p.find(Selection{Max: 2})
	if c.Len() != 2 || c.Matched != 6 || c.Groups[0].Remote.Port != old.Port() {
		t.Errorf("of six the two oldest are %d of %d: %+v", c.Len(), c.Matched, c.Groups)
	}
}

// A rate spreads the work, and an interruption leaves the rest and says how many.
func TestInterruptedReap(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	p.timeWait(to, accepted, 40)
	c := p.find(Selection{})
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	result, err := c.Reap(ctx, Options{StateDir: dir, Rate: 10, Progress: func(done, _ int) {
		if done == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || result.Reaped != 2 || result.Left != 38 {
		t.Fatalf("reaped %+v, %v; want 2, and 38 left", result, err)
	}
	p.await(tcp.TimeWait, to, 38)
	records, err := journal.Read(dir)
	if err != nil || len(records) != 2 {
		t.Fatalf("journal %+v, %v", records, err)
	}
	if !bytes.Contains(records[1].Detail, []byte(`"left":38`)) {
		t.Errorf("the journal says %s", records[1].Detail)
	}
}

// Nothing goes when the journal cannot be written.
func TestNoReapWithoutAJournal(t *testing.T) {
	p := newRoom(t)
	to, accepted := p.listen("127.0.0.1:0")
	p.timeWait(to, accepted, 1)
	if result, err := p.find(Selection{}).Reap(t.Context(), Options{StateDir: "/proc/no-such"}); err == nil {
		t.Errorf("reaped %+v without a journal", result)
	}
	p.await(tcp.TimeWait, to, 1)
}
