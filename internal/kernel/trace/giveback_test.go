package trace

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"linger/internal/tcp"
)

const hopperVariable = "TRACE_TEST_HOPPER"

// hop is a program of its own: for each byte that it reads it opens and closes one connection on
// a port that it has not used before, which makes two groups, and says so.
func hop() error {
	for port := 9000; ; port++ {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return nil
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		s, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
		s.Read(make([]byte, 1))
		s.Close()
		l.Close()
		fmt.Println("hopped")
	}
}

// ledger adds up what groups count, and those that were given back.
type ledger struct {
	ns    Netns
	gone  map[who]Counts
	given int
	used  int // groups in the table
}

func (l *ledger) read(t *testing.T, tr *Tracer) (sums map[who]Counts, other Counts) {
	t.Helper()
	sums = map[who]Counts{}
	add := func(to map[who]Counts, g *Group) {
		sum := to[who{g.Process, g.Role}]
		sum.Opened += g.Opened
		for e, n := range g.Endings {
			sum.Endings[e] += n
		}
		to[who{g.Process, g.Role}] = sum
	}
	l.used = 0
	if err := tr.Groups(func(g *Group) {
		if !g.Gone {
			l.used++
		}
		switch {
		case g.Number == 0:
			other = g.Counts
		case g.Netns == l.ns && g.Gone:
			l.given++
			add(l.gone, g)
		case g.Netns == l.ns:
			add(sums, g)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for w, c := range l.gone {
		add(sums, &Group{Key: Key{Process: w.process, Role: w.role}, Counts: c})
	}
	return sums, other
}

// TestGroupsAreGivenBack: many more groups than fit, one after the other, have each their place,
// while other connections go on; and what was counted in them is not lost.
func TestGroupsAreGivenBack(t *testing.T) {
	const size, hops, steady = 64, 150, 3000
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}, MaxGroups: size})
	tr.keeper.quiet, tr.keeper.settle = 50*time.Millisecond, 50*time.Millisecond
	l := ledger{ns: id, gone: map[who]Counts{}}

	// One that goes on all the time, and one that stays open and quiet.
	server := peer{Listen: "127.0.0.1:8000", Count: steady, Do: "wait"}.start(t, ns, "", "the-server")
	server.says(t, "ready")
	client := peer{Dial: "127.0.0.1:8000", Count: steady, Do: "close"}.start(t, ns, "", "the-client")
	idle := peer{Listen: "127.0.0.1:8001", Count: 1, Do: "hold"}.start(t, ns, "", "idle-server")
	idle.says(t, "ready")
	peer{Dial: "127.0.0.1:8001", Count: 1, Do: "hold"}.start(t, ns, "", "idle-client").says(t, "holding")

	hopper := start(t, ns, "", "the-hopper", self(t), []string{hopperVariable + "=1"})
	for range hops {
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			l.read(t, tr)
			if l.used < size-4 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d groups are in use, and %d were given back", l.used, size, l.given)
			}
		}
		if _, err := hopper.stdin.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		hopper.says(t, "hopped")
	}
	client.ends(t)
	server.ends(t)

	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		sums, other := l.read(t, tr)
		good := other.Opened == 0 && l.given > 2*hops-size
		for w, want := range map[who]uint64{
			{"the-hopper", tcp.Connector}: hops, {"the-hopper", tcp.Acceptor}: hops,
			{"the-client", tcp.Connector}: steady, {"the-server", tcp.Acceptor}: steady,
		} {
			sum := sums[w]
			// Of openings few may be missed, of ends none (tally.agrees).
			good = good && sum.Opened <= want && sum.Opened+few(want) >= want && sum.Endings[ClosedHere]+sum.Endings[ClosedThere] == want
		}
		if good {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d groups were given back, %d connections found no group; the sums are %v", l.given, other.Opened, opened(sums))
		}
	}
	// What is open keeps its place.
	found := groupsOf(t, tr, id)
	if a, b := found[who{"idle-server", tcp.Acceptor}], found[who{"idle-client", tcp.Connector}]; a.Live != 1 || b.Live != 1 {
		t.Errorf("the open connection is in %+v and %+v", a.summary(), b.summary())
	}
}

func opened(sums map[who]Counts) map[who]uint64 {
	out := map[who]uint64{}
	for w, c := range sums {
		out[w] = c.Opened
	}
	return out
}
