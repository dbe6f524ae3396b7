package lab_test

import (
	"net/netip"
	"testing"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
)

// Where nothing is bound and all use time stamps, what is told of each socket is what
// the ages let one estimate.
func TestTakeoverAgreesWithTheEstimate(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(stagetest.Family(ipv6), func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			b := build(t, "tw-reuse", cases.Options{IPv6: ipv6})
			wait(t, b.RipeAt)
			s, _ := look(t, ctx, b.Topology.Nodes...)
			g, ns := takeoverOf(t, s, b.Expect.Node)
			budgets := diagnose.NewBudgets(ns).WithReuse()
			exact, _ := budgets.Of(g)
			plain := *g
			plain.Takeover = nil
			estimate, _ := budgets.Of(&plain)
			if !exact.Exact || estimate.Exact {
				t.Errorf("exact: %v and %v", exact.Exact, estimate.Exact)
			}
			if exact.TimeWait < 850 || exact.Reusable < estimate.Reusable-20 || exact.Reusable > estimate.Reusable+20 {
				t.Errorf("%d of %d reusable, estimated %d", exact.Reusable, exact.TimeWait, estimate.Reusable)
			}
		})
	}
}

func takeoverOf(t testing.TB, s *snapshot.Snapshot, n *stage.Node) (*snapshot.Group, *snapshot.Namespace) {
	t.Helper()
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		for j := range ns.Groups {
			if ns.Inode == n.Inode() && ns.Groups[j].Takeover != nil {
				return &ns.Groups[j], ns
			}
		}
	}
	for _, gap := range s.Gaps {
		t.Logf("gap: %+v", gap)
	}
	t.Fatal("no TIME_WAIT socket was asked")
	return nil, nil
}

// Where the estimate errs, what is told of each socket is what connect() does. All
// namespaces are read at once.
func TestTakeoverIsWhatConnectDoes(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	const ports, more = 400, 50
	type settings map[string]string
	cases := []struct {
		name           string
		client, server settings
		bind           bool
		count          func(*snapshot.Takeover) int
		freed          bool
	}{
		{name: "free", count: func(t *snapshot.Takeover) int { return t.Ripe }, freed: true},
		{name: "bound", bind: true, count: func(t *snapshot.Takeover) int { return t.Bound }},
		{name: "peer without time stamps", server: settings{"net.ipv4.tcp_timestamps": "0"},
			count: func(t *snapshot.Takeover) int { return t.NoTimestamps }},
		{name: "own time stamps off", client: settings{"net.ipv4.tcp_timestamps": "0"},
			count: func(t *snapshot.Takeover) int { return t.NoTimestamps }},
		{name: "delay raised", client: settings{"net.ipv4.tcp_tw_reuse_delay": "60000"},
			count: func(t *snapshot.Takeover) int { return t.Young }},
	}
	type made struct {
		node   *stage.Node
		client *stage.Worker
		dial   stage.DialSpec
	}
	var all []made
	o := collect.Options{Window: window}
	for _, c := range cases {
		topology, client, _, service := pairOf(t, stage.CloseSecond)
		node := topology.Nodes[0]
		o.Netns = append(o.Netns, node.Path(), topology.Nodes[1].Path())
		for _, set := range []struct {
			*stage.Node
			settings
		}{{node, settings{"net.ipv4.ip_local_port_range": "40000 40399", "net.ipv4.tcp_tw_reuse": "0"}}, {node, c.client},
			{topology.Nodes[1], c.server}} {
			for key, value := range set.settings {
				if err := set.Set(key, value); err != nil {
					t.Fatal(err)
				}
			}
		}
		dial := stage.DialSpec{To: []netip.AddrPort{service}, Count: 2 * ports}
		fill := dial
		if c.bind {
			fill.From, fill.BindPort = []netip.Addr{node.Addr(false)}, true
		}
		done, err := client.Churn(ctx, fill)
		if err != nil || done.NoPort+done.Failed == 0 {
			t.Fatalf("%s: %+v, %v; want the ports to run out", c.name, done, err)
		}
		if err := node.Set("net.ipv4.tcp_tw_reuse", "1"); err != nil {
			t.Fatal(err)
		}
		dial.Count = more
		all = append(all, made{node, client, dial})
	}
	wait(t, time.Now().Add(2*time.Second))
	s, err := collect.Collect(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		g, ns := takeoverOf(t, s, all[i].node)
		// A late RST of the other end kills some TIME_WAIT sockets (RFC 1337).
		if n := c.count(g.Takeover); n < ports*9/10 || n != g.Takeover.Sockets() {
			t.Errorf("%s: %+v, want all %d sockets to be that", c.name, *g.Takeover, ports)
		}
		b, _ := diagnose.NewBudgets(ns).Of(g)
		if !b.Exact || c.freed != (b.Reusable > 0) {
			t.Errorf("%s: budget %+v", c.name, b)
		}
		if c.name == "bound" && (ns.BoundTimeWait == nil || *ns.BoundTimeWait != g.Takeover.Bound) {
			t.Errorf("%s: ports of bound TIME_WAIT sockets %v, want %d", c.name, ns.BoundTimeWait, g.Takeover.Bound)
		}
		done, err := all[i].client.Churn(ctx, all[i].dial)
		if err != nil {
			t.Fatal(err)
		}
		if c.freed && done.NoPort > 0 || !c.freed && done.Opened > ports/10 {
			t.Errorf("%s: of %d connects more %d succeeded, %d found no port", c.name, more, done.Opened, done.NoPort)
		}
	}
	// bind() is told with half of the range in use and more, and by whom else.
	d := diagnose.Judge(s, diagnose.DefaultThresholds())
	found := false
	for _, f := range d.Findings {
		for _, g := range append([]diagnose.Finding{f}, f.Related...) {
			if g.Problem == diagnose.BindBeforeConnect {
				found = true
				if g.Netns.Inode != all[1].node.Inode() {
					t.Errorf("%s in %s, where nothing is bound", g.Problem, g.Netns.Label)
				}
			}
			if g.Problem == diagnose.TWReuse && g.Netns.Inode != all[3].node.Inode() && g.Netns.Inode != all[4].node.Inode() {
				t.Errorf("%s in %s: no setting frees a port: %s", g.Problem, g.Netns.Label, g.Summary)
			}
		}
	}
	if !found {
		t.Errorf("no bind-before-connect:\n%s", headlines(d))
	}
}
