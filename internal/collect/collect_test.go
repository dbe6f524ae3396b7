package collect_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"linger/internal/collect"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// self names this process's own namespace, which needs no right to be read.
func self() []string { return []string{strconv.Itoa(os.Getpid())} }

func read(t *testing.T, o collect.Options) snapshot.Namespace {
	t.Helper()
	s, err := collect.Collect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Namespaces) != 1 {
		t.Fatalf("%d namespaces, want this process's own: %+v", len(s.Namespaces), s.Gaps)
	}
	return s.Namespaces[0]
}

// service is a listener of this process with so many connections to it, which
// are closed by the client first or stay open.
func service(t *testing.T, closed, open int) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for i := range closed + open {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if i < closed {
			c.Close()
			if _, err := s.Read(make([]byte, 1)); err == nil {
				t.Fatal("data from a closed connection")
			}
			s.Close()
			continue
		}
		t.Cleanup(func() { c.Close(); s.Close() })
	}
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func find(t *testing.T, ns snapshot.Namespace, role tcp.Role, local, remote string) snapshot.Group {
	t.Helper()
	for _, g := range ns.Groups {
		if g.Role == role && g.Local.String() == local && g.Remote.String() == remote {
			return g
		}
	}
	t.Fatalf("no %s %s → %s among %d groups", role, local, remote, len(ns.Groups))
	return snapshot.Group{}
}

func TestBothEndsOfAService(t *testing.T) {
	address := service(t, 40, 12)
	ns := read(t, collect.Options{Netns: self(), Window: 50 * time.Millisecond})
	if !ns.Own || !ns.SocketsRead || !ns.SocketsComplete {
		t.Fatalf("own %v, sockets read %v, complete %v", ns.Own, ns.SocketsRead, ns.SocketsComplete)
	}

	connector := find(t, ns, tcp.Connector, "127.0.0.1", address.String())
	if connector.Rule != tcp.ByRemoteListener {
		t.Errorf("role of the connector told by %s", connector.Rule)
	}
	if got := connector.States; got[tcp.TimeWait] != 40 || got[tcp.Established] != 12 {
		t.Errorf("connector has %v, want 40 TIME_WAIT and 12 ESTABLISHED", got)
	}
	if h := connector.Closes; h == nil || h.PerSecond[0]+h.PerSecond[1]+h.PerSecond[2] != 40 {
		t.Errorf("history %+v, want 40 closes within the last seconds", h)
	}

	acceptor := find(t, ns, tcp.Acceptor, address.String(), "*")
	if got := acceptor.States; got[tcp.Established] != 12 || got.Total() != 12 {
		t.Errorf("acceptor has %v, want the 12 ESTABLISHED", got)
	}
	if len(acceptor.Clients) != 1 || acceptor.Clients[0].Addr != netip.MustParseAddr("127.0.0.1") || !acceptor.ClientsComplete {
		t.Errorf("clients %+v, complete %v; want 127.0.0.1 alone", acceptor.Clients, acceptor.ClientsComplete)
	}

	for what, owners := range map[string][]snapshot.Owner{
		"connector": connector.Owners, "acceptor": acceptor.Owners,
		"connector's peer": peerOwners(connector.Peer), "acceptor's peer": peerOwners(acceptor.Peer),
	} {
		if len(owners) != 1 || owners[0].PID != os.Getpid() {
			t.Errorf("owners of the %s: %+v, want this process %d", what, owners, os.Getpid())
		}
	}
	if how := connector.Owners[0].How; how != snapshot.Inferred {
		t.Errorf("owner of TIME_WAIT sockets is %s: the kernel has forgotten it", how)
	}
	if how := acceptor.Owners[0].How; how != snapshot.Listening {
		t.Errorf("owner of the service is %s, want listener", how)
	}
}

func peerOwners(p *snapshot.Peer) []snapshot.Owner {
	if p == nil {
		return nil
	}
	return p.Owners
}

func TestRiseIsToldFromTotal(t *testing.T) {
	const name = "TcpActiveOpens"
	one := read(t, collect.Options{Netns: self()})
	if _, known := one.Counters.Rose(name); known {
		t.Error("a rise is known from one reading")
	}
	if one.Counters.Total[name] == 0 {
		t.Fatalf("no %s at all", name)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if c, err := net.Dial("tcp4", "127.0.0.1:1"); err == nil {
					c.Close()
				}
			}
		}
	}()
	two := read(t, collect.Options{Netns: self(), Window: 100 * time.Millisecond})
	close(stop)
	<-done
	rise, known := two.Counters.Rose(name)
	if !known || rise == 0 || rise >= two.Counters.Total[name] && one.Counters.Total[name] > 1 {
		t.Errorf("%s rose by %d (known: %v) of %d", name, rise, known, two.Counters.Total[name])
	}
	if rise, known := two.Counters.Rose("TcpExtNoSuchCounter"); known || rise != 0 {
		t.Error("a counter that does not exist is known")
	}
}

func TestCloseWaitGetsASecondLook(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const leaked, unaccepted = 12, 5
	for i := range leaked + unaccepted {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if i < leaked {
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		g := find(t, read(t, collect.Options{Netns: self()}), tcp.Acceptor, l.Addr().String(), "*")
		cw := g.CloseWait
		if cw != nil && cw.Old == leaked && cw.Unaccepted == unaccepted {
			if len(cw.Owners) != 1 || cw.Owners[0].PID != os.Getpid() || cw.Owners[0].Sockets != leaked {
				t.Errorf("owners %+v, want this process with all %d", cw.Owners, leaked)
			}
			if o := cw.Owners[0]; o.Descriptors == nil || o.DescriptorLimit == nil || *o.Descriptors < leaked {
				t.Errorf("descriptors %v of %v", o.Descriptors, o.DescriptorLimit)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("second look %+v, want %d old and %d never accepted", cw, leaked, unaccepted)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	start := time.Now()
	progress := func(done, total int, what string) {
		if what == "reading sockets" {
			cancel()
		}
	}
	address := service(t, 1, 1)
	s, err := collect.Collect(ctx, collect.Options{Netns: self(), Window: time.Hour, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(start) > time.Minute {
		t.Error("it waited for the window")
	}
	if len(s.Namespaces) != 1 || len(s.Gaps) == 0 || !strings.Contains(s.Gaps[0].Cause, "interrupted") {
		t.Errorf("%d namespaces, gaps %+v; want what was read, and a gap that says why not all", len(s.Namespaces), s.Gaps)
	}
	find(t, s.Namespaces[0], tcp.Connector, "127.0.0.1", address.String())

	canceled, cancelEarly := context.WithCancel(context.Background())
	cancelEarly()
	late, cancelLate := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancelLate()
	for _, early := range []context.Context{canceled, late} {
		s, err := collect.Collect(early, collect.Options{Netns: self()})
		if err != nil || len(s.Gaps) != 1 || s.Gaps[0].What != "all of it" {
			t.Errorf("interrupted before the start: %+v, %v; want one gap that says so", s, err)
		}
	}
}

func TestUnknownNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"no-such-name", "4194305", "/no/such/path", file} {
		if _, err := collect.Collect(context.Background(), collect.Options{Netns: []string{name}}); !errors.Is(err, collect.ErrUnknownNamespace) {
			t.Errorf("--netns %s: %v, want %v", name, err, collect.ErrUnknownNamespace)
		}
	}
}
