package change

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/plan"
	"linger/internal/remedy"
	"linger/internal/snapshot"
)

// TestAnIncident runs a client out of source ports, and changes its host: first
// tcp_tw_reuse, then a wider range. Connects stop failing, the numbers that were
// promised move, and without a confirmation the old values are back.
func TestAnIncident(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	pair, err := lab.NewPair("client", "server")
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer pair.Close()
	client, server := pair.Nodes[0], pair.Nodes[1]
	const ports = 500
	if err := errors.Join(client.Set(plan.KeyRange, fmt.Sprintf("40000 %d", 40_000+ports-1)), client.Set(plan.KeyReuse, "0")); err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(ctx, "lab-server")
	if err != nil {
		t.Fatal(err)
	}
	service := netip.AddrPortFrom(server.IPv4, 8080)
	if _, err := s.Serve(ctx, lab.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: lab.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	c, err := client.Start(ctx, "lab-client")
	if err != nil {
		t.Fatal(err)
	}
	dial := lab.DialSpec{To: []netip.AddrPort{service}, Count: ports}
	churn := func() lab.Dialed {
		t.Helper()
		done, err := c.Churn(ctx, dial)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	churn()
	if done := churn(); done.NoPort == 0 {
		t.Fatalf("no connect failed for want of a port: %+v", done)
	}

	dir := t.TempDir()
	look := func() *snapshot.Snapshot {
		t.Helper()
		s, err := collect.Collect(ctx, collect.Options{Netns: []string{fmt.Sprint(c.PID())}, Window: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	change := func(within time.Duration, key, value string) *Entry {
		t.Helper()
		s := look()
		p, err := plan.Make(s, diagnose.Judge(s, diagnose.DefaultThresholds()), plan.Wish{Set: []remedy.Assignment{{Key: key, Value: value}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Changes) != 1 || len(p.Changes[0].Effects) == 0 {
			t.Fatalf("plan %+v", p.Changes)
		}
		e, err := Apply(ctx, p, Options{StateDir: dir, Within: within, Guard: GuardWarn, Live: true})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	read := func(key string) (value string) {
		t.Helper()
		err := client.Do(func() (err error) { value, err = readHere(key); return err })
		if err != nil {
			t.Fatal(err)
		}
		return value
	}

	e := change(time.Minute, plan.KeyReuse, "1")
	awaitRipe(t, ctx, c, dial) // a second old, from when on connect() takes ports over
	if done := churn(); done.NoPort > 0 {
		t.Errorf("with tcp_tw_reuse %d of %d connects failed for want of a port", done.NoPort, dial.Count)
	}
	if _, err := Confirm(dir, e.ID); err != nil {
		t.Fatal(err)
	}

	e = change(3*time.Second, plan.KeyRange, "30001 40499")
	moved := false
	now := e.Plan.Changes[0].Now(&look().Namespaces[0])
	for _, effect := range e.Plan.Changes[0].Effects {
		value, known := now[effect.Name]
		moved = moved || known && effect.Name == "source ports" && value == effect.After && value > effect.Before
	}
	if !moved {
		t.Errorf("promised %+v, and now %v", e.Plan.Changes[0].Effects, now)
	}
	if done := churn(); done.NoPort > 0 {
		t.Errorf("with a wider range %d of %d connects failed for want of a port", done.NoPort, dial.Count)
	}
	for deadline := time.Now().Add(patience); read(plan.KeyRange) != "40000 40499"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the range is still %s", read(plan.KeyRange))
		}
	}
	if read(plan.KeyReuse) != "1" {
		t.Error("what was confirmed was taken back as well")
	}
}

// awaitRipe connects until a port is free again.
func awaitRipe(t *testing.T, ctx context.Context, c *lab.WorkerProcess, dial lab.DialSpec) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		one := dial
		one.Count = dial.Count / 2
		done, err := c.Churn(ctx, one)
		if err != nil {
			t.Fatal(err)
		}
		if done.NoPort == 0 {
			time.Sleep(1100 * time.Millisecond) // what this closed must age as well
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("connects fail still: %+v", done)
		}
	}
}

// TestTheGuard: connects that are refused after a change, and were not before, make
// the guard take it back.
func TestTheGuard(t *testing.T) {
	t.Parallel()
	for mode, want := range map[GuardMode]Kind{GuardWarn: Applied, GuardRollback: Undone} {
		t.Run(string(mode), func(t *testing.T) { guarded(t, mode, want) })
	}
}

func guarded(t *testing.T, mode GuardMode, want Kind) {
	w := newWorld(t)
	connect := func(times int) {
		t.Helper()
		err := w.ns.Do(func() error {
			listener, err := net.Listen("tcp4", "127.0.0.1:9")
			if err != nil {
				return err
			}
			defer listener.Close()
			for range times {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				err = unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
				unix.Close(fd)
				if err != nil {
					return err
				}
				served, err := listener.Accept() // what a listener leaves is reset
				if err != nil {
					return err
				}
				served.Close()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(times int) {
		t.Helper()
		err := w.ns.Do(func() error {
			for range times {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				err = unix.Connect(fd, &unix.SockaddrInet4{Port: 10, Addr: [4]byte{127, 0, 0, 1}})
				unix.Close(fd)
				if !errors.Is(err, unix.ECONNREFUSED) {
					return fmt.Errorf("connect: %w", err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	connect(50)
	w.plan.MadeAt = time.Now().Add(-baseLine)
	e, err := Apply(t.Context(), w.plan, Options{StateDir: w.dir, Within: time.Minute, Guard: mode, Live: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.endWatcher(e.ID)
	refused(guardEvents * 3)
	w.await("the guard", func() bool {
		now := w.entry(e.ID)
		return now.State == want && (now.Warning != "" || strings.HasPrefix(now.Reason, "the guard: "))
	})
	if mode == GuardRollback && w.values() != oldValues {
		t.Errorf("values %v", w.values())
	}
}

// TestTheGuardOnPorts: a range that is too narrow makes connects find no source port,
// which moves no counter. The guard sees it by tracing, and takes the change back.
func TestTheGuardOnPorts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan.Changes = w.plan.Changes[1:]
	w.plan.Changes[0].New = "40000 40009"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go w.keepConnecting(ctx)
	e, err := Apply(t.Context(), w.plan, Options{StateDir: w.dir, Within: time.Hour, Guard: GuardRollback, Live: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.endWatcher(e.ID)
	if e.base.Traced == nil || e.base.Traced.Opened == 0 || e.base.Traced.NoPort != 0 {
		t.Errorf("the base line is %+v", e.base)
	}
	w.await("the guard", func() bool { return w.entry(e.ID).State == Undone })
	if e := w.entry(e.ID); !strings.HasPrefix(e.Reason, "the guard: ") || !strings.Contains(e.Reason, "found no source port") {
		t.Errorf("reason %q", e.Reason)
	}
	if value, err := read(w.ns, keyTwo); err != nil || value != oldTwo {
		t.Errorf("the range is %s, %v", value, err)
	}
}

// keepConnecting opens connections in the namespace of a world, fifty a second, and
// leaves each in TIME_WAIT with its port.
func (w *world) keepConnecting(ctx context.Context) {
	_ = w.ns.Do(func() error {
		listener, err := net.Listen("tcp4", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer listener.Close()
		for ctx.Err() == nil {
			if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
				if served, err := listener.Accept(); err == nil {
					c.Close()
					served.Close()
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
}

// Where the kernel lets nobody load BPF programs, what only tracing sees is unknown, with
// the reason, and the counters are judged as ever.
func TestTheGuardWithoutTracing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, _, err := deed{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Hour, Guard: GuardWarn}.run(noBPFEnv + "=1")
	if err != nil {
		t.Fatal(err)
	}
	defer w.endWatcher(id)
	seen := Watched{}
	w.await("the watcher to tell", func() bool {
		seen = *w.entry(id).Report(w.dir).Watched
		return strings.Contains(seen.NoPort.Unknown, "BPF is not allowed")
	})
	if seen.NoPort.Since != nil || seen.NoPort.Worse || !strings.Contains(seen.String(), "found no source port: unknown since") {
		t.Errorf("%+v: %s", seen, seen)
	}
}

// A watcher that is killed leaves none of its BPF programs in the kernel.
func TestAKilledWatcherTracesNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.apply(time.Hour)
	var programs []ebpf.ProgramID
	w.await("the watcher to trace", func() bool {
		if s := sighted(w.dir, e.ID); s.Traced == nil {
			return false
		}
		programs = programsOf(w.processes()[0])
		return len(programs) > 0
	})
	pid, err := strconv.Atoi(w.processes()[0])
	if err := errors.Join(err, unix.Kill(pid, unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	w.await("the kernel to take its programs back", func() bool {
		return !slices.ContainsFunc(programs, func(id ebpf.ProgramID) bool {
			p, err := ebpf.NewProgramFromID(id)
			if err == nil {
				p.Close()
			}
			return !errors.Is(err, os.ErrNotExist)
		})
	})
	if s := sighted(w.dir, e.ID); s.Traced != nil || !strings.Contains(s.Unknown, "no watcher") {
		t.Errorf("it tells %+v", s)
	}
}

// programsOf are the BPF programs that a process has open (proc_pid_fdinfo(5)).
func programsOf(pid string) (ids []ebpf.ProgramID) {
	files, _ := filepath.Glob("/proc/" + pid + "/fdinfo/*")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if _, rest, found := strings.Cut(string(text), "prog_id:"); found {
			if n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 32); err == nil {
				ids = append(ids, ebpf.ProgramID(n))
			}
		}
	}
	return ids
}
