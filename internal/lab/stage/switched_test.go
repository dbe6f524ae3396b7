package stage_test

import (
	"net/netip"
	"testing"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
)

// An address can be used as soon as its node is there: a connection to a node's own
// address over IPv6 that began too soon failed three seconds later.
func TestAddressesCanBeUsedAtOnce(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	for range 40 {
		topology, err := stage.NewPair("one", "other")
		stagetest.NeedRoot(t, err)
		w, err := topology.Nodes[0].Start(ctx, "lab-both")
		if err != nil {
			t.Fatal(err)
		}
		service := netip.AddrPortFrom(topology.Nodes[0].IPv6, 7000)
		if _, err := w.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: stage.CloseSecond}); err != nil {
			t.Fatal(err)
		}
		if done, err := w.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: 1}); err != nil || done.Opened != 1 {
			t.Errorf("%+v, %v", done, err)
		}
		if err := topology.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Each host of a switch reaches each other one, over either family, and there are no
// more than have numbers.
func TestSwitchJoinsAll(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, err := stage.NewSwitched("one", "two", "three")
	stagetest.NeedRoot(t, err)
	t.Cleanup(func() { topology.Close() })
	for _, ipv6 := range []bool{false, true} {
		var to []netip.AddrPort
		for _, n := range topology.Nodes {
			w, err := n.Start(ctx, "lab-server")
			if err != nil {
				t.Fatal(err)
			}
			service := netip.AddrPortFrom(n.Addr(ipv6), 7000)
			if _, err := w.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service},
				Close: stage.CloseSecond}); err != nil {
				t.Fatal(err)
			}
			to = append(to, service)
		}
		for _, n := range topology.Nodes {
			w, err := n.Start(ctx, "lab-client")
			if err != nil {
				t.Fatal(err)
			}
			if done, err := w.Churn(ctx, stage.DialSpec{To: to, Count: 3}); err != nil || done.Opened != 3 {
				t.Errorf("%s over %s: %+v, %v", n.Name, stagetest.Family(ipv6), done, err)
			}
		}
	}
	if _, err := stage.NewSwitched(make([]string, 10)...); err == nil {
		t.Error("a switch of ten hosts was made")
	}
}
