package lab_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// traced looks at namespaces while the kernel follows their connections.
func traced(t *testing.T, ctx context.Context, nodes ...*stage.Node) (*snapshot.Snapshot, diagnose.Diagnosis) {
	t.Helper()
	o := collect.Options{Window: window, Trace: 2 * time.Second}
	for _, n := range nodes {
		o.Netns = append(o.Netns, n.Path())
	}
	s, err := collect.Collect(ctx, o)
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	for _, g := range s.Gaps {
		if g.What == "who opens and closes connections" {
			t.Skip("no tracing here: ", g.Cause)
		}
	}
	return s, diagnose.Judge(s, diagnose.DefaultThresholds())
}

// problem is a finding by its name, wherever it stands.
func problem(t *testing.T, d diagnose.Diagnosis, slug diagnose.Slug) diagnose.Finding {
	t.Helper()
	for _, f := range d.Findings {
		for _, f := range append([]diagnose.Finding{f}, f.Related...) {
			if f.Problem == slug {
				return f
			}
		}
	}
	t.Fatalf("no %s; held %s\n%s", slug, describe(d.Absent), headlines(d))
	return diagnose.Finding{}
}

// Two programs in one namespace connect to one service. Each is seen, with what it made.
func TestTracedOwnersAreSeen(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, one, _, service := pairOf(t, stage.CloseSecond)
	two, err := topology.Nodes[0].Start(ctx, "second-client")
	if err != nil {
		t.Fatal(err)
	}
	to := []netip.AddrPort{service}
	for _, w := range []*stage.Worker{one, two} {
		if err := w.Begin(ctx, stage.DialSpec{To: to, Batch: 1, Rate: 40}); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := traced(t, ctx, topology.Nodes...)
	remote := tcp.Endpoint{Addr: service.Addr(), Port: service.Port()}
	groups := group(s, topology.Nodes[0], func(g snapshot.Group) bool { return g.Remote == remote })
	if len(groups) != 1 || len(groups[0].Owners) != 2 || groups[0].Traced == nil {
		t.Fatalf("want one group of two owners, got\n%s", describe(groups))
	}
	g := groups[0]
	if g.Traced.ClosedHere < 40 || g.Traced.ClosedThere+g.Traced.AbortedHere+g.Traced.ResetThere > 0 || g.Traced.LifeMS.P50 == nil {
		t.Errorf("traced %s", describe(g.Traced))
	}
	var closed uint64
	made := 0
	for _, o := range g.Owners {
		if o.How != snapshot.Seen || o.Traced == nil || o.Traced.ClosedHere == 0 || o.Sockets == 0 || o.PID == 0 {
			t.Errorf("owner %s", describe(o))
			continue
		}
		closed += o.Traced.ClosedHere
		made += o.Sockets
	}
	// Sockets that were closed before the tracing, or after it, have no known maker.
	if closed != g.Traced.ClosedHere || made > g.States[tcp.TimeWait] || uint64(made) > closed || 2*uint64(made) < closed {
		t.Errorf("%d closed, %d made, of\n%s", closed, made, describe(g))
	}
	groups = group(s, topology.Nodes[1], func(g snapshot.Group) bool { return g.Role == tcp.Acceptor })
	for _, g := range groups {
		if g.Traced == nil || g.Traced.ClosedThere < 40 {
			t.Errorf("the acceptor is\n%s", describe(g))
		}
	}
}

// Connects that find no port are counted, and their program is named.
func TestTracedPortExhaustion(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	if err := topology.Nodes[0].Set("net.ipv4.ip_local_port_range", "40000 40299"); err != nil {
		t.Fatal(err)
	}
	if err := topology.Nodes[0].Set("net.ipv4.tcp_tw_reuse", "0"); err != nil {
		t.Fatal(err)
	}
	if err := client.Begin(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Batch: 4, Rate: 400}); err != nil {
		t.Fatal(err)
	}
	for timeWait(t, topology.Nodes[0]) < 290 {
		time.Sleep(10 * time.Millisecond)
	}
	_, d := traced(t, ctx, topology.Nodes...)
	f := problem(t, d, diagnose.PortExhaustion)
	if f.Severity != diagnose.Critical || !f.FailingNow || len(f.Owners) == 0 || f.Owners[0].Process != "healthy-client" ||
		f.Owners[0].How != snapshot.Seen {
		t.Errorf("the finding is %s", describe(f))
	}
	if len(f.Evidence) == 0 || f.Evidence[0].Name != "connects without a port" || f.Evidence[0].Value < 10 ||
		!strings.Contains(f.Summary, "by healthy-client") {
		t.Errorf("%s\n%s", f.Summary, describe(f.Evidence))
	}
}

// That a program binds before it connects is seen, and no longer inferred from ports.
func TestTracedBindBeforeConnect(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	from := []netip.Addr{topology.Nodes[0].IPv4}
	if err := client.Begin(ctx, stage.DialSpec{To: []netip.AddrPort{service}, From: from, BindPort: true, Batch: 4,
		Rate: 300}); err != nil {
		t.Fatal(err)
	}
	for timeWait(t, topology.Nodes[0]) < 300 {
		time.Sleep(10 * time.Millisecond)
	}
	_, d := traced(t, ctx, topology.Nodes...)
	f := problem(t, d, diagnose.BindBeforeConnect)
	if f.Confidence != diagnose.High || len(f.Owners) == 0 || f.Owners[0].How != snapshot.Seen {
		t.Errorf("the finding is %s", describe(f))
	}
	if len(f.Evidence) == 0 || f.Evidence[0].Name != "bound before connect()" || f.Evidence[0].Value != *f.Evidence[0].Limit {
		t.Errorf("the evidence is %s", describe(f.Evidence))
	}
}

// Who resets connections is seen at both ends.
func TestTracedVanishedConnections(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	b := build(t, diagnose.VanishedConnections, cases.Options{})
	_, d := traced(t, ctx, b.Topology.Nodes...)
	f := problem(t, d, diagnose.VanishedConnections)
	for _, unsure := range f.Unsure {
		if strings.Contains(unsure, "only tracing") {
			t.Errorf("traced, and yet unsure: %s", unsure)
		}
	}
	if f.Confidence != diagnose.High || len(f.Owners) == 0 || f.Owners[0].How != snapshot.Seen ||
		!strings.Contains(f.Why, "Most were seen with") {
		t.Errorf("the finding is %s", describe(f))
	}
}
