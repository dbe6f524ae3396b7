package trace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"linger/internal/kernel/netns/netnstest"
	"linger/internal/kernel/sockdiag"
	"linger/internal/tcp"
)

const tracerVariable = "TRACE_TEST_TRACER"

// traceUntilKilled is a program of its own: it follows connections, and says what the kernel
// keeps for it.
func traceUntilKilled() error {
	tr, err := Load(Options{MaxOwners: 100, Events: &Filter{}})
	if err != nil {
		return err
	}
	kept, err := tr.kept()
	if err != nil {
		return err
	}
	fmt.Println(strings.Trim(fmt.Sprint(kept), "[]"))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// object is a program, map or link in the kernel.
type object struct {
	kind byte // p, m or l
	id   uint32
}

func (o object) String() string { return fmt.Sprintf("%c%d", o.kind, o.id) }

func (o object) exists() bool {
	var err error
	var c io.Closer
	switch o.kind {
	case 'p':
		c, err = ebpf.NewProgramFromID(ebpf.ProgramID(o.id))
	case 'm':
		c, err = ebpf.NewMapFromID(ebpf.MapID(o.id))
	default:
		c, err = link.NewFromID(link.ID(o.id))
	}
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, os.ErrNotExist)
}

// kept are the objects that the kernel keeps for a tracer.
func (t *Tracer) kept() ([]object, error) {
	var kept []object
	for _, p := range t.objects.Programs {
		info, err := p.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		kept = append(kept, object{'p', uint32(id)})
	}
	for _, m := range t.objects.Maps {
		info, err := m.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		kept = append(kept, object{'m', uint32(id)})
	}
	for _, l := range t.links {
		info, err := l.Info()
		if err != nil {
			return nil, err
		}
		kept = append(kept, object{'l', uint32(info.ID)})
	}
	return kept, nil
}

// TestNothingIsLeft: neither when a tracer is closed, nor when its process is killed.
func TestNothingIsLeft(t *testing.T) {
	t.Run("closed", func(t *testing.T) {
		tr, err := Load(Options{MaxOwners: 100, Events: &Filter{}, Family: true})
		if err != nil {
			t.Skip("no tracing here: ", err)
		}
		kept, err := tr.kept()
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		gone(t, kept)
	})
	t.Run("killed", func(t *testing.T) {
		// While connections go on, which another tracer goes on to count.
		const n = 4000
		ns, id := newNamespace(t)
		other := follow(t, Options{Netns: []Netns{id}})
		r := start(t, ns, "", "the-tracer", self(t), []string{tracerVariable + "=1"})
		kept := r.keeps(t)
		if len(kept) < 15 || !slices.ContainsFunc(kept, object.exists) {
			t.Fatalf("the tracer keeps %v", kept)
		}
		s := peer{Listen: "127.0.0.1:8000", Count: n, Do: "wait"}.start(t, ns, "", "the-server")
		s.says(t, "ready")
		c := peer{Dial: "127.0.0.1:8000", Count: n, Do: "close"}.start(t, ns, "", "the-client")
		for deadline := time.Now().Add(patience); groupsOf(t, other, id)[who{"the-client", tcp.Connector}].Opened < n/10; {
			if time.Now().After(deadline) {
				t.Fatal("no connections")
			}
		}
		if err := r.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		gone(t, kept)
		c.ends(t)
		s.ends(t)
		eventually(t, other, id, map[who]tally{
			{"the-server", tcp.Acceptor}:  {"opened": n, "closed-there": n},
			{"the-client", tcp.Connector}: {"opened": n, "closed-here": n, "handed-over": n},
		})
	})
}

// keeps reads what a tracer says that the kernel keeps for it.
func (r *running) keeps(t *testing.T) (kept []object) {
	t.Helper()
	var line strings.Builder
	for b := make([]byte, 1); b[0] != '\n'; line.WriteByte(b[0]) {
		if _, err := io.ReadFull(r.out, b); err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range strings.Fields(line.String()) {
		o := object{kind: word[0]}
		if _, err := fmt.Sscan(word[1:], &o.id); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, o)
	}
	return kept
}

// gone waits until the kernel has taken objects back, which it does some time after the last
// who uses them: some grace periods of RCU, which a busy machine makes long.
func gone(t *testing.T, kept []object) {
	t.Helper()
	deadline := time.Now().Add(4 * patience)
	for {
		left := slices.DeleteFunc(slices.Clone(kept), func(o object) bool { return !o.exists() })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind are %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTwoAtOnce: tracers do not disturb each other.
func TestTwoAtOnce(t *testing.T) {
	ns, id := newNamespace(t)
	one, two := follow(t, Options{}), follow(t, Options{Netns: []Netns{id}, MaxOwners: 100})
	s := peer{Listen: "127.0.0.1:8000", Count: connections, Do: "wait"}.start(t, ns, "", "the-server")
	s.says(t, "ready")
	peer{Dial: "127.0.0.1:8000", Count: connections, Do: "close"}.start(t, ns, "", "the-client").ends(t)
	s.ends(t)
	want := map[who]tally{
		{"the-server", tcp.Acceptor}:  {"opened": connections, "closed-there": connections},
		{"the-client", tcp.Connector}: {"opened": connections, "closed-here": connections, "handed-over": connections},
	}
	eventually(t, one, id, want)
	eventually(t, two, id, want)
}

// TestOwnersOfTimeWait: each of 20,000 TIME_WAIT sockets is given to the program that made it.
func TestOwnersOfTimeWait(t *testing.T) {
	const programs = 4
	each := 5000
	if testing.Short() {
		each = 300
	}
	ns, id := newNamespace(t)
	netnstest.Set(t, ns, "net.ipv4.tcp_max_tw_buckets", "100000")
	netnstest.Set(t, ns, "net.ipv4.tcp_tw_reuse", "0")
	tr := follow(t, Options{Netns: []Netns{id}, MaxOwners: 1 << 15})
	var clients []*running
	began := time.Now()
	for i := range programs {
		to := fmt.Sprintf("127.0.0.%d:8000", 1+i)
		peer{Listen: to, Count: each, Do: "answer"}.start(t, ns, "", fmt.Sprintf("server-%d", i)).says(t, "ready")
		clients = append(clients, peer{Dial: to, Count: each, Do: "ask"}.start(t, ns, "", fmt.Sprintf("client-%d", i)))
	}
	want := map[who]tally{}
	for i, c := range clients {
		c.ends(t)
		want[who{fmt.Sprintf("client-%d", i), tcp.Connector}] = tally{
			"opened": uint64(each), "closed-here": uint64(each), "handed-over": uint64(each),
		}
		want[who{fmt.Sprintf("server-%d", i), tcp.Acceptor}] = tally{"opened": uint64(each), "closed-there": uint64(each)}
	}
	eventually(t, tr, id, want)
	owners, err := tr.Owners()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := sockdiag.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	right, timeWait := 0, 0
	err = conn.Dump(t.Context(), sockdiag.Request{States: []tcp.State{tcp.TimeWait, tcp.FinWait2TimeWait}}, func(s *tcp.Socket) {
		timeWait++
		to := s.Remote.Netip().As4()
		want := fmt.Sprintf("client-%d", to[3]-1)
		pid := uint32(clients[to[3]-1].Process.Pid)
		if owner := owners[Socket{id, s.Cookie}]; owner.Process == want && owner.PID == pid {
			right++
		} else {
			t.Errorf("a TIME_WAIT socket to %v is given to %+v, want %s (pid %d)", s.Remote.Netip(), owner, want, pid)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// On a machine that is emulated the first may have left TIME_WAIT, after 60 s, before the last have come.
	all := timeWait == programs*each || timeWait > 0 && time.Since(began) > time.Minute
	if !all || right != timeWait {
		t.Errorf("%d of %d TIME_WAIT sockets are given to their makers, want all %d", right, timeWait, programs*each)
	}
}

// TestOwnersAreBounded: of many, so many are remembered, and mostly the last.
func TestOwnersAreBounded(t *testing.T) {
	const most = 512 // of which each CPU takes 128 at a time
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}, MaxOwners: most})
	for i := range 2 {
		s := peer{Listen: "127.0.0.1:8000", Count: 3 * most, Do: "wait"}.start(t, ns, "", "the-server")
		s.says(t, "ready")
		peer{Dial: "127.0.0.1:8000", Count: 3 * most, Do: "close"}.start(t, ns, "", fmt.Sprintf("client-%d", i)).ends(t)
		s.ends(t)
	}
	owners, err := tr.Owners()
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, owner := range owners {
		if owner.Process == "client-1" {
			last++
		}
	}
	if len(owners) > most || last < most/4 || 2*last < len(owners) {
		t.Errorf("%d are remembered, %d of them the last; want at most %d", len(owners), last, most)
	}
}
