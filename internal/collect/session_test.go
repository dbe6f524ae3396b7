package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// testHost is some namespaces of a test's own.
type testHost struct {
	t     *testing.T
	at    []*netns.Handle
	paths []string
}

// newHost makes namespaces with a service and a connection to it in each.
func newHost(t *testing.T, namespaces int) *testHost {
	t.Helper()
	h := &testHost{t: t}
	for range namespaces {
		h.add()
	}
	return h
}

func (h *testHost) add() *netns.Handle {
	h.t.Helper()
	ns := netnstest.New(h.t)
	h.at, h.paths = append(h.at, ns), append(h.paths, fmt.Sprintf("/proc/self/fd/%d", ns.FD()))
	h.do(ns, func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:80")
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		client, server, err := connect(l)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { client.Close(); server.Close() })
		return nil
	})
	return ns
}

func (h *testHost) do(ns *netns.Handle, fn func() error) {
	h.t.Helper()
	if err := ns.Do(fn); err != nil {
		h.t.Fatal(err)
	}
}

func connect(l net.Listener) (client, server net.Conn, err error) {
	if client, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = l.Accept()
	return client, server, err
}

func (h *testHost) open(o Options) *Session {
	h.t.Helper()
	if o.Netns == nil {
		o.Netns = h.paths
	}
	s, err := Open(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	return s
}

func (h *testHost) read(s *Session) *snapshot.Snapshot {
	h.t.Helper()
	out, err := s.Read(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// cpuTime is what this process has had of the CPUs.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Where there are many namespaces, most of them are quiet, and a session that has read them once
// reads them again for half of the CPU time at most; it opens none again.
func TestReadingAgainIsCheap(t *testing.T) {
	const namespaces, busy, sessions = 200, 10, 3
	h := newHost(t, namespaces)
	var first, again time.Duration
	for range sessions {
		start := cpuTime(t)
		s := h.open(Options{})
		before := h.read(s)
		first += cpuTime(t) - start
		if s.openings != namespaces || len(before.Namespaces) != namespaces {
			t.Fatalf("%d namespaces opened, %d read, want %d", s.openings, len(before.Namespaces), namespaces)
		}
		for _, ns := range h.at[:busy] {
			h.do(ns, func() error {
				c, err := net.Dial("tcp4", "127.0.0.1:80")
				if err == nil {
					c.Close()
				}
				return err
			})
		}
		start = cpuTime(t)
		after := h.read(s)
		again += cpuTime(t) - start
		if s.openings != namespaces {
			t.Errorf("the second reading opened %d namespaces", s.openings-namespaces)
		}
		between := snapshot.Between(before, after)
		if len(between.Namespaces) != namespaces {
			t.Fatalf("%d namespaces in both, want %d", len(between.Namespaces), namespaces)
		}
		for i, ns := range between.Namespaces {
			opens, known := ns.Counters.Rose("TcpActiveOpens")
			if want := i < busy; !known || opens == 1 != want {
				t.Errorf("namespace %d: %d connections opened meanwhile (known: %v)", i, opens, known)
			}
			if ns.After.States[tcp.Established] < 2 {
				t.Errorf("namespace %d: %v, want both ends of a connection", i, ns.After.States)
			}
		}
		s.Close()
	}
	t.Logf("CPU time of %d first readings %v, of as many second ones %v", sessions, first, again)
	if 2*again > first {
		t.Errorf("a second reading took %v of CPU time, a first one %v: more than half", again/sessions, first/sessions)
	}
}

// What happens in a namespace is seen by the next reading, though nothing happened before.
func TestReadingSeesWhatQuietNamespacesDo(t *testing.T) {
	h := newHost(t, 2)
	s := h.open(Options{})
	h.read(s)
	quiet := h.read(s).Namespaces[0]
	if quiet.States[tcp.Established] != 2 || len(quiet.Groups) != 2 || len(quiet.Groups[0].Owners) != 1 {
		t.Fatalf("a quiet namespace has %v in %d groups: %+v", quiet.States, len(quiet.Groups), quiet.Groups)
	}
	var l net.Listener
	var waiting net.Conn
	for _, step := range []struct {
		what string
		do   func() error
		want func(*snapshot.Namespace) bool
	}{
		{"a connection that waits to be accepted", func() (err error) {
			if l, err = net.Listen("tcp4", "127.0.0.1:81"); err == nil {
				waiting, err = net.Dial("tcp4", l.Addr().String())
			}
			return err
		}, func(ns *snapshot.Namespace) bool { return ns.States[tcp.Established] == 4 && noFile(ns) == 1 }},
		{"that was accepted", func() error {
			server, err := l.Accept()
			if err == nil {
				t.Cleanup(func() { server.Close() })
			}
			return err
		}, func(ns *snapshot.Namespace) bool { return ns.States[tcp.Established] == 4 && noFile(ns) == 0 }},
		{"and closed by the client", func() error { return waiting.Close() },
			func(ns *snapshot.Namespace) bool {
				return ns.States[tcp.Established] == 2 && ns.States[tcp.CloseWait] == 1
			}},
		{"a listener that is gone", func() error { return l.Close() },
			func(ns *snapshot.Namespace) bool { return len(ns.Listeners) == 1 }},
	} {
		h.do(h.at[0], step.do)
		if ns := &h.read(s).Namespaces[0]; !step.want(ns) {
			t.Errorf("%s: %v, %d without a file, %d listeners", step.what, ns.States, noFile(ns), len(ns.Listeners))
		}
		h.read(s)
	}
}

func noFile(ns *snapshot.Namespace) (n int) {
	for _, g := range ns.Groups {
		n += g.NoFile[tcp.Established]
	}
	return n
}

// Namespaces come and go between the readings of a session.
func TestNamespacesComeAndGo(t *testing.T) {
	stays := newHost(t, 1)
	gone, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	named := func(h *netns.Handle, file string) {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(stays.pathOf(h), file, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("cannot mount: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
	}
	run := t.TempDir()
	if err := os.Mkdir(run+"/netns", 0o700); err != nil {
		t.Fatal(err)
	}
	named(stays.at[0], run+"/netns/stays")
	named(gone, run+"/netns/gone")
	gone.Close()

	s := stays.open(Options{Netns: []string{"all"}, Roots: Roots{Run: run}})
	first := stays.read(s)
	if got := names(first); !slices.Contains(got, "stays") || !slices.Contains(got, "gone") {
		t.Fatalf("namespaces %v, want those below %s", got, run)
	}
	if err := unix.Unmount(run+"/netns/gone", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	came, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer came.Close()
	named(came, run+"/netns/came")
	second := stays.read(s)
	between := snapshot.Between(first, second)
	if got := names(second); !slices.Contains(got, "stays") || !slices.Contains(got, "came") || slices.Contains(got, "gone") {
		t.Errorf("namespaces %v, want those below %s", got, run)
	}
	isNamed := func(all []*snapshot.Namespace, name string) bool {
		return slices.ContainsFunc(all, func(ns *snapshot.Namespace) bool { return ns.Label.Name == name })
	}
	if !isNamed(between.Came, "came") || !isNamed(between.Gone, "gone") || isNamed(between.Came, "stays") {
		t.Errorf("came %d, gone %d", len(between.Came), len(between.Gone))
	}
	if len(s.doors) != len(second.Namespaces) {
		t.Errorf("%d namespaces are open, of %d", len(s.doors), len(second.Namespaces))
	}
}

func (h *testHost) pathOf(ns *netns.Handle) string { return fmt.Sprintf("/proc/self/fd/%d", ns.FD()) }

func names(s *snapshot.Snapshot) (all []string) {
	for _, ns := range s.Namespaces {
		all = append(all, ns.Label.Name)
	}
	return all
}

// A reading waits for nothing, whatever window one look would have.
func TestReadDoesNotWait(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(Options{Window: 24 * time.Hour})
	for range 2 {
		out := h.read(s)
		if out.WindowMS != 0 || out.Namespaces[0].Counters.Rise != nil {
			t.Errorf("a reading of one instant has a window of %d ms, and %v rose", out.WindowMS, out.Namespaces[0].Counters.Rise)
		}
	}
}

// A session holds what it has open, and no more with each reading; when it is closed, nothing.
func TestSessionKeepsNoDescriptors(t *testing.T) {
	h := newHost(t, 5)
	before := descriptors(t)
	s := h.open(Options{})
	h.read(s)
	open := descriptors(t)
	for range 20 {
		h.read(s)
	}
	if now := descriptors(t); now != open {
		t.Errorf("%d descriptors after 20 readings, %d after the first", now, open)
	}
	s.Close()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors when it is closed, %d before it was opened", now, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// An interrupted reading does no harm to the next.
func TestReadingAfterAnInterruptedOne(t *testing.T) {
	h := newHost(t, 3)
	s := h.open(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	s.options.Progress = func(_, _ int, what string) {
		if what == "reading sockets" {
			cancel()
		}
	}
	out, err := s.Read(ctx)
	if err != nil || len(out.Gaps) == 0 {
		t.Fatalf("interrupted: %v, gaps %+v", err, out.Gaps)
	}
	s.options.Progress = nil
	for _, ns := range h.read(s).Namespaces {
		if !ns.SocketsComplete || ns.States[tcp.Established] != 2 {
			t.Errorf("namespace %d: complete %v, %v", ns.Inode, ns.SocketsComplete, ns.States)
		}
	}
}

// Who leaves TIME_WAIT sockets is seen from one reading to the next: by the connections that are
// new in its hands.
func TestOwnersAreSeenBetweenReadings(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(Options{})
	var l net.Listener
	h.do(h.at[0], func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:82")
		return err
	})
	defer l.Close()
	churn := func() (open net.Conn) {
		h.do(h.at[0], func() error {
			for range 2 * watchedFrom {
				client, server, err := connect(l)
				if err != nil {
					return err
				}
				client.Close()
				server.Read(make([]byte, 1))
				server.Close()
			}
			client, server, err := connect(l)
			if err == nil {
				open = client
				t.Cleanup(func() { client.Close(); server.Close() })
			}
			return err
		})
		return open
	}
	for range 3 {
		defer churn().Close()
		h.read(s)
	}
	service := tcp.Endpoint{Addr: netip.MustParseAddr("127.0.0.1"), Port: 82}
	for _, g := range h.read(s).Namespaces[0].Groups {
		if g.Remote != service {
			continue
		}
		if len(g.Owners) != 1 || g.Owners[0].PID != os.Getpid() || g.Owners[0].How != snapshot.Inferred {
			t.Errorf("owners %+v, want this process %d", g.Owners, os.Getpid())
		}
		return
	}
	t.Error("no connector")
}

// A tracing session counts from its beginning on, and tells what it saw by each reading.
func TestTracingSession(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(Options{Trace: time.Nanosecond})
	if s.trace == nil {
		t.Skipf("no tracing here: %+v", s.traceGaps)
	}
	for opens := uint64(1); opens <= 2; opens++ {
		h.do(h.at[0], func() error {
			c, err := net.Dial("tcp4", "127.0.0.1:80")
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
		traced := h.read(s).Namespaces[0].Traced
		if traced == nil || traced.Opens != 2*opens { // each end opens
			t.Errorf("traced %+v, want %d opens", traced, 2*opens)
		}
	}
}

// Of the namespaces with names one may end, and the others are read on.
func TestNamedNamespaceEnds(t *testing.T) {
	h := newHost(t, 1)
	ends, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	s := h.open(Options{Netns: []string{h.paths[0], h.pathOf(ends)}})
	if got := len(h.read(s).Namespaces); got != 2 {
		t.Fatalf("%d namespaces, want 2", got)
	}
	ends.Close()
	if got := len(h.read(s).Namespaces); got != 1 || len(s.doors) != 1 {
		t.Errorf("%d namespaces, %d open, want the one that is left", got, len(s.doors))
	}
}

func TestSessionOfWhatDoesNotExist(t *testing.T) {
	if _, err := Open(t.Context(), Options{Netns: []string{"no-such-name"}}); !errors.Is(err, ErrUnknownNamespace) {
		t.Errorf("%v, want %v", err, ErrUnknownNamespace)
	}
}
