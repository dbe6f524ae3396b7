package change

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"linger/internal/deed"
)

// TestTheGuard: connects that are refused after a change, and were not before, make
// the guard take it back.
func TestTheGuard(t *testing.T) {
	t.Parallel()
	for mode, want := range map[deed.GuardMode]deed.State{deed.GuardWarn: deed.Pending, deed.GuardRollback: deed.Undone} {
		t.Run(string(mode), func(t *testing.T) { guarded(t, mode, want) })
	}
}

func guarded(t *testing.T, mode deed.GuardMode, want deed.State) {
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
		return now.State == want && (now.Warning != "" || now.Reason.Kind == deed.Guarded)
	})
	if mode == deed.GuardRollback && w.values() != oldValues {
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
	e, err := Apply(t.Context(), w.plan, Options{StateDir: w.dir, Within: time.Hour, Guard: deed.GuardRollback, Live: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.endWatcher(e.ID)
	if e.base.Traced == nil || e.base.Traced.Opened == 0 || e.base.Traced.NoPort != 0 {
		t.Errorf("the base line is %+v", e.base)
	}
	w.await("the guard", func() bool { return w.entry(e.ID).State == deed.Undone })
	if e := w.entry(e.ID); e.Reason.Kind != deed.Guarded || !strings.Contains(e.Reason.Detail, "found no source port") {
		t.Errorf("reason %v", e.Reason)
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
	id, _, err := errand{What: "apply", Dir: w.dir, Plan: w.plan, Within: time.Hour, Guard: deed.GuardWarn}.run(noBPFEnv + "=1")
	if err != nil {
		t.Fatal(err)
	}
	defer w.endWatcher(id)
	seen := deed.Watched{}
	w.await("the watcher to tell", func() bool {
		seen = *w.entry(id).Report(w.dir).Watched
		return strings.Contains(seen.NoPort.Unknown.Cause, "BPF is not allowed")
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
	if s := sighted(w.dir, e.ID); s.Traced != nil || s.Unknown.Kind != deed.NoWatcher {
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

func TestWorse(t *testing.T) {
	tally := func(opened, failed uint64) deed.Tally { return deed.Tally{Opened: opened, Failed: failed} }
	for _, test := range []struct {
		name          string
		before, since deed.Tally
		want          bool
	}{
		{"nothing", deed.Tally{}, deed.Tally{}, false},
		{"no base line", deed.Tally{}, tally(100, 100), false},
		{"too few", tally(1000, 0), tally(1000, 19), false},
		{"twenty out of nothing", tally(1000, 0), tally(1000, 20), true},
		{"twice as many", tally(1000, 100), tally(1000, 200), false},
		{"three times as many, of few", tally(1000, 7), tally(1000, 21), false},
		{"three times as many, of many", tally(10_000, 100), tally(10_000, 300), true},
		{"as many, of more connections", tally(1000, 100), tally(10_000, 1000), false},
		{"as many, of fewer connections", tally(10_000, 100), tally(1000, 100), true},
	} {
		if got := worse(test.before, test.since); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

// The tail agrees with sums that can be done by hand.
func TestBinomialTail(t *testing.T) {
	for _, test := range []struct {
		k, n uint64
		p    float64
		want float64
	}{
		{0, 10, 0.5, 1}, {10, 10, 0.5, 1.0 / 1024}, {9, 10, 0.5, 11.0 / 1024}, {1, 2, 0.25, 1 - 0.75*0.75}, {1, 1, 0, 0}, {1, 1, 1, 1},
	} {
		if got := binomialTail(test.k, test.n, test.p); got < test.want-1e-12 || got > test.want+1e-12 {
			t.Errorf("P(X ≥ %d of %d at %g) = %g, want %g", test.k, test.n, test.p, got, test.want)
		}
	}
}
