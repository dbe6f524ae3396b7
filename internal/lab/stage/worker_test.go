package stage_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/tcp"
)

func startWorker(t testing.TB, n *stage.Node, name string) *stage.Worker {
	t.Helper()
	w, err := n.Start(stagetest.Context(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWorkerIsAProcessInsideTheNamespace(t *testing.T) {
	t.Parallel()
	n := stagetest.Loopback(t)
	w := startWorker(t, n, "lab-somebody")
	proc := "/proc/" + strconv.Itoa(w.PID())
	comm, err := os.ReadFile(proc + "/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(comm)); got != "lab-somebody" {
		t.Errorf("comm is %q, want lab-somebody", got)
	}
	link, err := os.Readlink(proc + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", n.Inode()); link != want {
		t.Errorf("worker is in %s, want %s", link, want)
	}
}

func TestWorkerSaysWhatFailed(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	n := stagetest.Loopback(t)
	w := startWorker(t, n, "lab-failing")
	taken := stage.ServeSpec{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}, Close: stage.CloseFirst}
	if _, err := w.Serve(ctx, taken); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Serve(ctx, taken); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second service on one port: %v", err)
	}
	done, err := w.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:81")}, Count: 3})
	if err != nil || done.Failed != 3 || !strings.Contains(done.FirstFailure, "connection refused") {
		t.Errorf("nobody listens: %+v, %v; want 3 refused and no error", done, err)
	}
	if _, err := w.Churn(ctx, stage.DialSpec{Count: 1}); err == nil {
		t.Error("a churn without a destination is no error")
	}
	if _, err := w.End(ctx); err == nil {
		t.Error("ended a churn that was not begun")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Served(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after its end: %v, want os.ErrClosed", err)
	}
}

func TestWorkerCallIsCancelled(t *testing.T) {
	t.Parallel()
	n := stagetest.Loopback(t)
	w := startWorker(t, n, "lab-slow")
	to, err := w.Serve(stagetest.Context(t), stage.ServeSpec{Endpoints: []netip.AddrPort{netip.AddrPortFrom(n.IPv4, 0)},
		Close: stage.CloseSecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = w.Churn(ctx, stage.DialSpec{To: to, Count: 10_000, Rate: 1, Batch: 1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("churn that takes hours: %v, want context.DeadlineExceeded", err)
	}
	if _, err := w.Served(t.Context()); err == nil {
		t.Error("an answer after a cancelled call may belong to that call")
	}
}

// orphanEnv makes this program, started again, start a worker, print its process
// and wait.
const orphanEnv = "LINGER_LAB_TEST_ORPHAN"

func startOrphan() error {
	topology, err := stage.NewLoopback("orphan")
	if err != nil {
		return err
	}
	w, err := topology.Nodes[0].Start(context.Background(), "lab-orphan")
	if err != nil {
		return err
	}
	fmt.Println(w.PID())
	select {}
}

// Nothing is left behind by a program that is killed.
func TestWorkerEndsWithItsParent(t *testing.T) {
	t.Parallel()
	stagetest.Loopback(t) // skips
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), orphanEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	comm := "/proc/" + strings.TrimSpace(line) + "/comm"
	if name, err := os.ReadFile(comm); err != nil || string(name) != "lab-orphan\n" {
		t.Fatalf("worker is %q, %v", name, err)
	}
	parent.Process.Kill()
	parent.Wait()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		name, err := os.ReadFile(comm)
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(name) != "lab-orphan\n" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("worker still runs: %q, %v", name, err)
		}
	}
}

// The side that closes first has the TIME_WAIT, every one of them, and nobody
// sends a reset.
func TestFillLeavesTimeWaitWhereItSays(t *testing.T) {
	t.Parallel()
	for name, serverHolds := range map[string]bool{"client": false, "server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := stagetest.Loopback(t)
			const sockets = 5000
			done, err := stage.Fill(stagetest.Context(t), n,
				stage.FillSpec{Sockets: sockets, Groups: 50, ServerHolds: serverHolds})
			if err != nil || done.Opened != sockets {
				t.Fatalf("fill: %+v, %v", done, err)
			}
			all := stagetest.Rows(t, n)
			held, destinations := 0, map[netip.AddrPort]bool{}
			for _, r := range all {
				if r.State != tcp.TimeWait {
					continue
				}
				service := r.Remote
				if serverHolds {
					service = r.Local
				}
				if service.Port() >= 7000 && service.Port() < 7008 {
					held++
					destinations[service] = true
				}
			}
			least := sockets
			if serverHolds {
				// The client's ports are free at once: one that comes again takes the
				// service's TIME_WAIT along (RFC 1122, 4.2.2.13).
				least = sockets * 99 / 100
			}
			if held < least || held > sockets || len(destinations) != 50 {
				t.Errorf("the %s has %d TIME_WAIT sockets in %d groups, want %d to %d in 50", name, held, len(destinations),
					least, sockets)
			}
			if n := counter(t, n, "Tcp", "OutRsts"); n != 0 {
				t.Errorf("%d resets were sent", n)
			}
		})
	}
}

// counter reads one of /proc/net/snmp: a line of names above a line of numbers.
func counter(t *testing.T, n *stage.Node, protocol, name string) (value int) {
	t.Helper()
	err := n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if fields[0] != protocol+":" {
				continue
			}
			if names == nil {
				names = fields
				continue
			}
			for i, field := range fields {
				if names[i] == name {
					value, err = strconv.Atoi(field)
					return err
				}
			}
		}
		return fmt.Errorf("no counter %s of %s", name, protocol)
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// A setting of the laboratory is no setting of the host.
func TestSettingsStayInside(t *testing.T) {
	const key, file = "net.ipv4.tcp_fin_timeout", "/proc/sys/net/ipv4/tcp_fin_timeout"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := stagetest.Loopback(t)
	if err := n.Set(key, "33"); err != nil {
		t.Fatal(err)
	}
	var inside []byte
	if err := n.Do(func() (err error) { inside, err = os.ReadFile(file); return err }); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(inside) != "33\n" || string(after) != string(before) {
		t.Errorf("inside %q, host %q before and %q after", inside, before, after)
	}
}

// What the kernel keeps once per host is refused, or absent in a namespace.
func TestNoHostWideKeyIsWritten(t *testing.T) {
	n := stagetest.Loopback(t)
	for _, key := range []string{"kernel.pid_max", "vm.swappiness", "fs.file-max", "net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans",
		"net.netfilter.nf_conntrack_max"} {
		file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		before, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if err := n.Set(key, strings.TrimSpace(string(before))); err == nil {
			t.Errorf("%s was written", key)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	const sockets = 100_000
	for b.Loop() {
		topology, err := stage.NewLoopback("bench")
		stagetest.NeedRoot(b, err)
		if _, err := stage.Fill(stagetest.Context(b), topology.Nodes[0], stage.FillSpec{Sockets: sockets}); err != nil {
			b.Fatal(err)
		}
		if err := topology.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(sockets*float64(b.N)/b.Elapsed().Seconds(), "sockets/s")
}
