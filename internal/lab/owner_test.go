package lab_test

import (
	"net/netip"
	"testing"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// A program that keeps its connections has more of them at any moment than one that
// closes each after a few milliseconds, and it is not who leaves TIME_WAIT behind.
func TestWhoKeepsItsConnectionsIsNotBlamed(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, churner, _, service := pairOf(t, stage.CloseSecond)
	to := []netip.AddrPort{service}
	keeper, err := topology.Nodes[0].Start(ctx, "lab-keeper")
	if err != nil {
		t.Fatal(err)
	}
	if done, err := keeper.Hold(ctx, stage.DialSpec{To: to, Count: 30}); err != nil || done.Opened != 30 {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	if err := churner.Begin(ctx, stage.DialSpec{To: to, Batch: 2, Rate: 200}); err != nil {
		t.Fatal(err)
	}
	// Until there is TIME_WAIT enough to be asked for its owner.
	for timeWait(t, topology.Nodes[0]) < 100 {
		time.Sleep(10 * time.Millisecond)
	}
	// On a busy machine the looks may miss all of its connections: then nobody is named,
	// which is no error.
	remote := tcp.Endpoint{Addr: service.Addr(), Port: service.Port()}
	for range 5 {
		s, _ := look(t, ctx, topology.Nodes...)
		groups := group(s, topology.Nodes[0], func(g snapshot.Group) bool { return g.Remote == remote })
		if len(groups) != 1 {
			t.Fatalf("want one group, got\n%s", describe(groups))
		}
		o := groups[0].Owners
		if len(o) == 1 && o[0].Process == "healthy-client" && o[0].How == snapshot.Inferred {
			return
		}
		if len(o) != 0 {
			t.Fatalf("owners %+v, want healthy-client alone, inferred", o)
		}
	}
}

// A client and a service whose addresses fit, and that never spoke: an address
// alone is no proof where networks overlap.
func TestSameAddressesInTwoNetworks(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	one, client, _, service := pairOf(t, stage.CloseSecond)
	two, _, _, _ := pairOf(t, stage.CloseSecond)
	if done, err := client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: 20}); err != nil || done.Opened != 20 {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	// The client with a stranger's service, a stranger's client with the service.
	for _, strangers := range [][]*stage.Node{{one.Nodes[0], two.Nodes[1]}, {two.Nodes[0], one.Nodes[1]}} {
		s, _ := look(t, ctx, strangers...)
		for _, n := range strangers {
			for _, g := range group(s, n, func(snapshot.Group) bool { return true }) {
				if g.Peer != nil {
					t.Errorf("%s %s → %s has the peer %+v", g.Role, g.Local, g.Remote, g.Peer)
				}
				for _, c := range g.Clients {
					if c.Peer != nil {
						t.Errorf("client %s of %s has the peer %+v", c.Addr, g.Local, c.Peer)
					}
				}
			}
		}
	}
}

// Who made the TIME_WAIT sockets has ended, and one process is left that did not.
func TestWhoIsLeftIsNotBlamed(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	if done, err := client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: 200}); err != nil || done.Opened != 200 {
		t.Fatalf("churn: %+v, %v", done, err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.Nodes[0].Start(ctx, "lab-bystander"); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Now().Add(3*time.Second))
	s, _ := look(t, ctx, topology.Nodes...)
	groups := group(s, topology.Nodes[0], func(snapshot.Group) bool { return true })
	if len(groups) != 1 || groups[0].States[tcp.TimeWait] == 0 {
		t.Fatalf("want one group with TIME_WAIT, got\n%s", describe(groups))
	}
	if o := groups[0].Owners; len(o) != 0 {
		t.Errorf("owners %+v, and who it was is gone", o)
	}
}

// Of two programs with live connections to one service, the one whose ports bind() chose
// is named.
func TestWhoBindsIsNamedBesideAPool(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, binder, _, service := pairOf(t, stage.CloseSecond)
	node := topology.Nodes[0]
	to := []netip.AddrPort{service}
	pool, err := node.Start(ctx, "lab-pool")
	if err != nil {
		t.Fatal(err)
	}
	if done, err := pool.Hold(ctx, stage.DialSpec{To: to, Count: 40}); err != nil || done.Opened != 40 {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	if done, err := binder.Hold(ctx, stage.DialSpec{To: to, From: []netip.Addr{node.IPv4}, BindPort: true, Count: 200}); err != nil ||
		done.Opened != 200 {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	_, d := look(t, ctx, topology.Nodes...)
	f := problem(t, d, diagnose.BindBeforeConnect)
	if len(f.Owners) != 1 || !names(f.Owners, "healthy-client") {
		t.Errorf("owners %+v, want healthy-client alone: %s", f.Owners, f.Summary)
	}
}

// What sits on the port of a service that has ended is named, also where its other end is
// on a host that is not read, among what is left of the service's own connections.
func TestWhoSitsOnAPortIsNamedFromOneEnd(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(stagetest.Family(ipv6), func(t *testing.T) {
			t.Parallel()
			b := build(t, diagnose.AddressInUse, cases.Options{IPv6: ipv6})
			_, d := look(t, stagetest.Context(t), b.Expect.Node)
			f := problem(t, d, diagnose.AddressInUse)
			check(t, f, b.Expect)
			if f.Confidence != diagnose.Medium || f.Severity != diagnose.Warning {
				t.Errorf("%s, confidence %s: %s", f.Severity, f.Confidence, f.Summary)
			}
		})
	}
}
