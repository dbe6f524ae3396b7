package lab_test

import (
	"net/netip"
	"testing"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// group finds the one group of a namespace that fits.
func group(s *snapshot.Snapshot, n *stage.Node, fits func(snapshot.Group) bool) (found []snapshot.Group) {
	for _, ns := range s.Namespaces {
		if ns.Inode != n.Inode() {
			continue
		}
		for _, g := range ns.Groups {
			if fits(g) {
				found = append(found, g)
			}
		}
	}
	return found
}

// The service has exited, its TIME_WAIT is still there: one port on this side, many
// on the other.
func TestListenerThatHasExited(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, server, service := pairOf(t, stage.CloseFirst)
	dial := stage.DialSpec{To: []netip.AddrPort{service}, Count: 1500, PeerCloses: true}
	if done, err := client.Churn(ctx, dial); err != nil || done.Failed > 0 {
		t.Fatalf("churn: %+v, %v", done, err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	s, d := look(t, ctx, topology.Nodes[1])
	groups := group(s, topology.Nodes[1], func(g snapshot.Group) bool { return true })
	if len(groups) != 1 {
		t.Fatalf("%d groups, want 1:\n%s", len(groups), describe(groups))
	}
	g := groups[0]
	want := tcp.Endpoint{Addr: service.Addr(), Port: service.Port()}
	if g.Role != tcp.Acceptor || g.Rule != tcp.ByFanOut || g.Local != want {
		t.Errorf("%s of %s by %s, want %s of %s by %s", g.Role, g.Local, g.Rule, tcp.Acceptor, want, tcp.ByFanOut)
	}
	if len(g.Owners) != 0 {
		t.Errorf("owners %+v, and there is no process", g.Owners)
	}
	if len(d.Findings) == 0 || d.Findings[0].Problem != "connection-churn" {
		t.Errorf("want connection-churn first:\n%s", headlines(d))
	}
}

// The same from the other side: the service is in a namespace that is not read.
func TestServiceElsewhere(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	if done, err := client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: 1500}); err != nil || done.Failed > 0 {
		t.Fatalf("churn: %+v, %v", done, err)
	}
	s, _ := look(t, ctx, topology.Nodes[0])
	groups := group(s, topology.Nodes[0], func(g snapshot.Group) bool { return true })
	if len(groups) != 1 {
		t.Fatalf("%d groups, want 1:\n%s", len(groups), describe(groups))
	}
	g := groups[0]
	want := tcp.Endpoint{Addr: service.Addr(), Port: service.Port()}
	if g.Role != tcp.Connector || g.Rule != tcp.ByFanOut || g.Remote != want || g.Local.Port != 0 {
		t.Errorf("%s %s → %s by %s, want %s → %s by %s", g.Role, g.Local, g.Remote, g.Rule, tcp.Connector, want, tcp.ByFanOut)
	}
}

// A process connects out from the very port on which it listens. Those connections
// are a connector's all the same, and no traffic of its service.
func TestOutgoingConnectionFromAListeningPort(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, _, server, service := pairOf(t, stage.CloseSecond)
	far := []netip.AddrPort{service}
	for port := uint16(9001); port <= 9004; port++ {
		far = append(far, netip.AddrPortFrom(service.Addr(), port))
	}
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: far[1:], Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	both, err := topology.Nodes[0].Start(ctx, "lab-both")
	if err != nil {
		t.Fatal(err)
	}
	const port = 7777
	own := netip.AddrPortFrom(topology.Nodes[0].IPv4, port)
	if _, err := both.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{own}, Close: stage.CloseSecond,
		SharePort: true}); err != nil {
		t.Fatal(err)
	}
	if done, err := both.Hold(ctx, stage.DialSpec{To: far, FromPort: port, Count: len(far)}); err != nil || done.Opened != len(far) {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	// And the service has connections of its own.
	visitor, err := topology.Nodes[1].Start(ctx, "lab-visitor")
	if err != nil {
		t.Fatal(err)
	}
	if done, err := visitor.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{own}, Count: 3}); err != nil || done.Opened != 3 {
		t.Fatalf("hold: %+v, %v", done, err)
	}

	s, _ := look(t, ctx, topology.Nodes...)
	for _, to := range far {
		remote := tcp.Endpoint{Addr: to.Addr(), Port: to.Port()}
		groups := group(s, topology.Nodes[0], func(g snapshot.Group) bool { return g.Remote == remote })
		if len(groups) != 1 || groups[0].Role != tcp.Connector || groups[0].States[tcp.Established] != 1 {
			t.Errorf("to %s: want one connector with one connection, got\n%s", to, describe(groups))
			continue
		}
		if !names(groups[0].Owners, "lab-both") {
			t.Errorf("to %s: owners %+v do not name lab-both", to, groups[0].Owners)
		}
	}
	acceptors := group(s, topology.Nodes[0], func(g snapshot.Group) bool { return g.Role == tcp.Acceptor })
	if len(acceptors) != 1 || acceptors[0].Local.Port != port || acceptors[0].States[tcp.Established] != 3 {
		t.Errorf("want one acceptor on port %d with the visitor's 3 connections, got\n%s", port, describe(acceptors))
	}
}
