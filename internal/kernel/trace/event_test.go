package trace

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"linger/internal/tcp"
)

// listening are the events of a tracer while a test runs.
type listening struct {
	mu     sync.Mutex
	events []Event
	untold uint64
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

func listen(t *testing.T, tr *Tracer) *listening {
	t.Helper()
	l := &listening{}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	l.ended.Go(func() {
		untold, err := tr.Events(ctx, func(e *Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, *e)
		})
		if err != nil {
			t.Error(err)
		}
		l.untold = untold
	})
	t.Cleanup(func() { stop(); l.ended.Wait() })
	return l
}

// of waits for that many events, and returns them.
func (l *listening) of(t *testing.T, n int) []Event {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		have := l.events
		l.mu.Unlock()
		if len(have) >= n {
			return have
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events, want %d: %+v", len(have), n, have)
		}
	}
}

func TestEvents(t *testing.T) {
	ns, id := newNamespace(t)
	cgroup, number := newCgroup(t)
	tr := follow(t, Options{Netns: []Netns{id}, Events: &Filter{}})
	l := listen(t, tr)
	began := time.Now().Add(-time.Second)
	s := peer{Listen: "127.0.0.1:8000", Count: 2, Do: "reset"}.start(t, ns, "", "the-server")
	s.says(t, "ready")
	c := peer{Dial: "127.0.0.1:8000", Count: 2, Do: "wait"}.start(t, ns, cgroup, "the-client")
	c.ends(t)
	s.ends(t)
	peer{Dial: "127.0.0.1:9", Count: 1, Do: "close"}.start(t, ns, "", "the-client").ends(t)
	found := map[who]map[Ending]int{}
	for _, e := range l.of(t, 5) {
		w := who{e.Process, e.Role}
		if found[w] == nil {
			found[w] = map[Ending]int{}
		}
		found[w][e.Ending]++
		if e.Weight != 1 || e.Netns != id || e.PID == 0 && e.Role == tcp.Connector ||
			e.Ended.Before(began) || e.Ended.After(time.Now().Add(time.Second)) {
			t.Errorf("an event is %+v", e)
		}
		service := e.Remote
		if e.Role == tcp.Acceptor {
			service = e.Local
		}
		switch e.Ending {
		case Aborted:
			if e.Reason != "tcp_state" {
				t.Errorf("the reason of a reset is %q", e.Reason)
			}
		case ResetThere:
			if e.Cgroup != number || e.PID != uint32(c.Process.Pid) {
				t.Errorf("the client is pid %d in %d, want %d in %d", e.PID, e.Cgroup, c.Process.Pid, number)
			}
		}
		if e.Ending != Refused && (service != netip.MustParseAddrPort("127.0.0.1:8000") || e.Life <= 0 || e.Local.Port() == 0) {
			t.Errorf("an event is %+v", e)
		}
	}
	server, client := found[who{"the-server", tcp.Acceptor}], found[who{"the-client", tcp.Connector}]
	if server[Aborted] != 2 || client[ResetThere] != 2 || client[Refused] != 1 || len(found) != 2 {
		t.Errorf("the events are %v", found)
	}
}

// TestEventsFromBefore: a connection from before the tracing is told when it is aborted, as any other.
func TestEventsFromBefore(t *testing.T) {
	ns, id := newNamespace(t)
	s := peer{Listen: "127.0.0.1:8000", Count: 3, Do: "never accept"}.start(t, ns, "", "the-server")
	s.says(t, "ready")
	c := peer{Dial: "127.0.0.1:8000", Count: 3, Do: "hold"}.start(t, ns, "", "the-client")
	c.says(t, "holding")
	tr := follow(t, Options{Netns: []Netns{id}, Events: &Filter{}})
	l := listen(t, tr)
	s.ends(t)
	found := map[Ending]int{}
	for _, e := range l.of(t, 6) {
		found[e.Ending]++
	}
	if found[Aborted] != 3 || found[ResetThere] != 3 {
		t.Errorf("the events are %v", found)
	}
	c.ends(t)
}

// TestFilters: each lets through what it names, and nothing else.
func TestFilters(t *testing.T) {
	for name, filter := range map[string]Filter{
		"process":  {Process: "the-server"},
		"role":     {Role: tcp.Acceptor},
		"ending":   {Endings: []Ending{ClosedThere}},
		"port":     {Port: 8000, Role: tcp.Acceptor},
		"prefix":   {Remote: netip.MustParsePrefix("127.0.0.0/8"), Process: "the-server"},
		"no match": {Remote: netip.MustParsePrefix("127.0.0.2/32")},
		"life":     {LeastLife: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, id := newNamespace(t)
			tr := follow(t, Options{Netns: []Netns{id}, Events: &filter})
			l := listen(t, tr)
			s := peer{Listen: "127.0.0.1:8000", Count: 3, Do: "wait"}.start(t, ns, "", "the-server")
			s.says(t, "ready")
			peer{Dial: "127.0.0.1:8000", Count: 3, Do: "close"}.start(t, ns, "", "the-client").ends(t)
			s.ends(t)
			eventually(t, tr, id, map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": 3, "closed-there": 3},
				{"the-client", tcp.Connector}: {"opened": 3, "closed-here": 3, "handed-over": 3},
			})
			want := 3
			if name == "no match" || name == "life" {
				want = 0
			}
			l.of(t, want)
			l.stop()
			l.ended.Wait()
			if len(l.events) != want {
				t.Fatalf("%d events, want %d: %+v", len(l.events), want, l.events)
			}
			for _, e := range l.events {
				if e.Process != "the-server" || e.Role != tcp.Acceptor || e.Ending != ClosedThere {
					t.Errorf("this one passed: %+v", e)
				}
			}
		})
	}
}

// TestWeights: when more ends come than are read, some are told, with weights that add up to
// all.
func TestWeights(t *testing.T) {
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}, Events: &Filter{}})
	const n = 6000 // twice as many ends, of 192 bytes, are more than the buffer holds
	s := peer{Listen: "127.0.0.1:8000", Count: n, Do: "wait"}.start(t, ns, "", "the-server")
	s.says(t, "ready")
	peer{Dial: "127.0.0.1:8000", Count: n, Do: "close"}.start(t, ns, "", "the-client").ends(t)
	s.ends(t)
	lost := uint64(0) // whose last state was missed
	for _, g := range eventually(t, tr, id, map[who]tally{
		{"the-server", tcp.Acceptor}:  {"opened": n, "closed-there": n},
		{"the-client", tcp.Connector}: {"opened": n, "closed-here": n, "handed-over": n},
	}) {
		lost += uint64(g.Live) + g.Untimed
	}
	if missed, err := tr.Missed(); err == nil {
		t.Logf("%d events were missed", missed)
	}
	l := listen(t, tr)
	l.of(t, 1000)
	l.stop()
	l.ended.Wait()
	sum, sampled := l.untold, false
	for _, e := range l.events {
		sum += uint64(e.Weight)
		sampled = sampled || e.Weight > 1
	}
	if sum > 2*n || sum+lost < 2*n || !sampled {
		t.Errorf("%d events and %d untold stand for %d ends, want %d, of which %d may be lost", len(l.events), l.untold, sum, 2*n, lost)
	}
}

// TestFamily: only what this process's children do, and theirs, is followed.
func TestFamily(t *testing.T) {
	ns, id := newNamespace(t)
	before := peer{Listen: "127.0.0.1:8000", Count: 10, Do: "wait"}.start(t, ns, "", "the-server")
	before.says(t, "ready")
	tr := follow(t, Options{Family: true})
	// A shell, whose child is the client.
	shell := start(t, ns, "", "the-shell", program(t, "sh"), nil, "-c", `"$@"; "$@"`, "sh",
		program(t, "/usr/bin/python3"), "-c", pythonClient, "5", "first", "127.0.0.1")
	shell.ends(t)
	before.ends(t)
	eventually(t, tr, id, map[who]tally{
		{"python3", tcp.Connector}: {"opened": 10, "closed-here": 10, "handed-over": 10},
	})
}
