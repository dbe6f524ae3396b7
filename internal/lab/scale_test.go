package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"linger/internal/collect"
	"linger/internal/kernel/procnet"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TestScale looks at one namespace with 300,000 TIME_WAIT sockets in 20,000
// groups, and at 200 more beside it. It does not run in parallel with others: the
// first sockets are gone after a minute.
func TestScale(t *testing.T) {
	sockets, groups := 300_000, 20_000
	if testing.Short() || raceEnabled {
		sockets, groups = 30_000, 10_000
	}
	ctx := stagetest.Context(t)
	topology, err := stage.NewLoopback("crowded")
	stagetest.NeedRoot(t, err)
	stagetest.Closing(t, topology)
	crowded := topology.Nodes[0]
	filled, err := stage.Fill(ctx, crowded, stage.FillSpec{Sockets: sockets, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	if filled.Opened != sockets {
		t.Fatalf("filled with %+v", filled)
	}
	t.Logf("filled with %d in %.1f s: %.0f a second", filled.Opened, filled.Seconds, float64(filled.Opened)/filled.Seconds)
	culprit := lastComer(t, ctx, crowded)

	t.Run("groups", func(t *testing.T) { testManyGroups(t, ctx, crowded, culprit, groups) })
	t.Run("memory", func(t *testing.T) { testMemory(t, ctx, crowded) })
	t.Run("namespaces", func(t *testing.T) { testManyNamespaces(t, ctx, crowded) })
}

// lastComer makes the connections of one busy client after all others: it must not
// be lost among them.
func lastComer(t *testing.T, ctx context.Context, n *stage.Node) netip.AddrPort {
	t.Helper()
	w, err := n.Start(ctx, "lab-culprit")
	if err != nil {
		t.Fatal(err)
	}
	to := []netip.AddrPort{netip.MustParseAddrPort("127.250.250.250:6000")}
	if _, err := w.Serve(ctx, stage.ServeSpec{Endpoints: to, Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	if done, err := w.Churn(ctx, stage.DialSpec{To: to, Count: 5000}); err != nil || done.Opened != 5000 {
		t.Fatalf("churn: %+v, %v", done, err)
	}
	// Until the service has closed, too, the last ones are not in TIME_WAIT yet.
	for {
		served, err := w.Served(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if served.Closed == 5000 {
			return to[0]
		}
		time.Sleep(time.Millisecond)
	}
}

// timeWait is what the kernel itself counts.
func timeWait(t *testing.T, n *stage.Node) (count int) {
	t.Helper()
	err := n.Do(func() error {
		files := procnet.Open("/proc")
		defer files.Close()
		stat, err := files.Sockstat()
		if err == nil && stat.TimeWait != nil {
			count = int(*stat.TimeWait)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func testManyGroups(t *testing.T, ctx context.Context, n *stage.Node, culprit netip.AddrPort, groups int) {
	before := timeWait(t, n)
	start := time.Now()
	s, err := collect.Collect(ctx, collect.Options{Netns: []string{n.Path()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("collected in %s", time.Since(start))
	after := timeWait(t, n)
	ns := s.Namespaces[0]
	if !ns.SocketsRead || !ns.SocketsComplete {
		t.Errorf("sockets read %v, complete %v: %s", ns.SocketsRead, ns.SocketsComplete, describe(s.Gaps))
	}
	// Sockets end while they are counted: between the two counts, then.
	if got := ns.States.TimeWaitSockets(); got > before || got < after {
		t.Errorf("%d TIME_WAIT sockets, want between %d and %d", got, after, before)
	}
	total, all := 0, len(ns.Groups)
	for _, g := range ns.Groups {
		total += g.States.TimeWaitSockets()
	}
	if ns.Other != nil {
		total += ns.Other.States.TimeWaitSockets()
		all += ns.Other.Groups
	}
	if total != ns.States.TimeWaitSockets() {
		t.Errorf("groups and other have %d TIME_WAIT sockets, the namespace %d", total, ns.States.TimeWaitSockets())
	}
	if all < groups {
		t.Errorf("%d groups with those in other, want at least %d", all, groups)
	}
	first := ns.Groups[0]
	if want := (tcp.Endpoint{Addr: culprit.Addr(), Port: culprit.Port()}); first.Remote != want || first.Role != tcp.Connector {
		t.Errorf("largest group is %s → %s with %d sockets, want %s that came last",
			first.Local, first.Remote, first.States.Total(), want)
	}
}

// memoryEnv makes this program, started again, collect from the namespace named
// and report.
const memoryEnv = "LINGER_LAB_TEST_COLLECT"

type memoryReport struct {
	PeakKB   int `json:"peak_kb"`
	TimeWait int `json:"time_wait"`
}

func collectAndReport(path string) error {
	s, err := collect.Collect(context.Background(), collect.Options{Netns: []string{path}})
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if found == nil {
		return fmt.Errorf("no VmHWM in /proc/self/status")
	}
	peak, err := strconv.Atoi(string(found[1]))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(memoryReport{peak, s.Namespaces[0].States.TimeWaitSockets()})
}

// A process of its own collects, so that its peak is collect's alone.
func testMemory(t *testing.T, ctx context.Context, n *stage.Node) {
	if raceEnabled {
		t.Skip("the race detector takes several times the memory")
	}
	child := exec.CommandContext(ctx, "/proc/self/exe")
	child.Env = append(os.Environ(), memoryEnv+"="+n.Path())
	child.Stderr = os.Stderr
	out, err := child.Output()
	if err != nil {
		t.Fatal(err)
	}
	var report memoryReport
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	t.Logf("%d TIME_WAIT sockets read with a peak of %d kB", report.TimeWait, report.PeakKB)
	if report.TimeWait == 0 {
		t.Error("nothing was read")
	}
	const most = 40 << 10 // kB
	if report.PeakKB > most {
		t.Errorf("peak of %d kB, want at most %d", report.PeakKB, most)
	}
}

func testManyNamespaces(t *testing.T, ctx context.Context, crowded *stage.Node) {
	const namespaces, busy, inBusy = 200, 3, 500
	paths := []string{crowded.Path()}
	timeWaits := map[uint64]int{}
	for i := range namespaces {
		topology, err := stage.NewLoopback("one of many " + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		stagetest.Closing(t, topology)
		n := topology.Nodes[0]
		paths = append(paths, n.Path())
		timeWaits[n.Inode()] = 0
		var listener net.Listener
		err = n.Do(func() (err error) {
			listener, err = net.Listen("tcp", "127.0.0.1:80")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		if i < busy {
			if _, err := stage.Fill(ctx, n, stage.FillSpec{Sockets: inBusy}); err != nil {
				t.Fatal(err)
			}
			timeWaits[n.Inode()] = inBusy
		}
	}
	start := time.Now()
	s, err := collect.Collect(ctx, collect.Options{Netns: paths})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("collected in %s", time.Since(start))
	if len(s.Namespaces) != namespaces+1 {
		t.Errorf("%d namespaces, want %d", len(s.Namespaces), namespaces+1)
	}
	for _, ns := range s.Namespaces {
		if ns.Inode == crowded.Inode() {
			continue
		}
		if !ns.SocketsRead || !ns.SocketsComplete || listenersOn(ns, 80) != 1 {
			t.Errorf("namespace %d: read %v, complete %v, listeners %s",
				ns.Inode, ns.SocketsRead, ns.SocketsComplete, describe(ns.Listeners))
		}
		if got := ns.States.TimeWaitSockets(); got != timeWaits[ns.Inode] {
			t.Errorf("namespace %d: %d TIME_WAIT sockets, want %d", ns.Inode, got, timeWaits[ns.Inode])
		}
	}
	for _, gap := range s.Gaps {
		if strings.Contains(gap.What, "socket") {
			t.Errorf("gap: %+v", gap)
		}
	}
}

func listenersOn(ns snapshot.Namespace, port uint16) (n int) {
	for _, l := range ns.Listeners {
		if l.Local.Port == port {
			n++
		}
	}
	return n
}
