package lab_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"linger/internal/collect"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Namespaces come and go while the whole host is read; one that stays is read in
// full each time, and none is an error.
func TestNamespacesThatVanishWhileRead(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	stays, client, _, service := pairOf(t, stage.CloseSecond)
	const held = 50
	if done, err := client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: held}); err != nil || done.Opened != held {
		t.Fatalf("hold: %+v, %v", done, err)
	}

	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := comeAndGo(ctx); err != nil {
				t.Errorf("come and go: %v", err)
				return
			}
		}
	})
	for range 8 {
		s, err := collect.Collect(ctx, collect.Options{Window: 20 * time.Millisecond})
		if err != nil {
			t.Errorf("collect: %v", err)
			break
		}
		if n := established(s, stays.Nodes[0]); n != held {
			t.Errorf("%d connections in the namespace that stays, want %d", n, held)
		}
	}
	close(stop)
	group.Wait()
}

func established(s *snapshot.Snapshot, n *stage.Node) int {
	for _, ns := range s.Namespaces {
		if ns.Inode == n.Inode() {
			return ns.States[tcp.Established]
		}
	}
	return 0
}

// comeAndGo is a namespace with a process and a few connections, for a moment.
func comeAndGo(ctx context.Context) (err error) {
	topology, err := stage.NewLoopback("moment")
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := topology.Close(); err == nil {
			err = closeErr
		}
	}()
	w, err := topology.Nodes[0].Start(ctx, "lab-moment")
	if err != nil {
		return err
	}
	bound, err := w.Serve(ctx, stage.ServeSpec{
		Endpoints: []netip.AddrPort{netip.AddrPortFrom(topology.Nodes[0].IPv4, 0)}, Close: stage.CloseSecond,
	})
	if err != nil {
		return err
	}
	_, err = w.Churn(ctx, stage.DialSpec{To: bound, Count: 20})
	return err
}
