package change

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

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
