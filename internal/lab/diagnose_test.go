package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
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

// window is the time between two readings of the counters in these tests: several
// kernel ticks, and enough steady load to be seen.
const window = time.Second

// look collects the nodes' namespaces and no other, and judges them.
func look(t testing.TB, ctx context.Context, nodes ...*stage.Node) (*snapshot.Snapshot, diagnose.Diagnosis) {
	t.Helper()
	o := collect.Options{Window: window}
	for _, n := range nodes {
		o.Netns = append(o.Netns, n.Path())
	}
	s, err := collect.Collect(ctx, o)
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	d := diagnose.Judge(s, diagnose.DefaultThresholds())
	// The tests themselves, and who else is here, keep the machine busy, up to packets that
	// its CPUs drop, and it is right to say so: that is of the host, and no namespace's.
	d.Findings = slices.DeleteFunc(d.Findings, func(f diagnose.Finding) bool {
		return f.Problem == diagnose.ResourcePressure && f.Netns.Inode == 0
	})
	return s, d
}

// wait waits for the kernel's state to age, which nothing but time can do.
func wait(t testing.TB, until time.Time) {
	t.Helper()
	time.Sleep(time.Until(until))
}

func describe(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func headlines(d diagnose.Diagnosis) string {
	var lines []string
	for _, f := range d.Findings {
		lines = append(lines, fmt.Sprintf("%s %s %s: %s", f.Severity, f.Problem, f.Netns.Label, f.Summary))
		for _, r := range f.Related {
			lines = append(lines, fmt.Sprintf("    %s %s %s: %s", r.Severity, r.Problem, r.Netns.Label, r.Summary))
		}
	}
	return strings.Join(lines, "\n")
}

// Each problem is built, and is the first that is named: with its role, its
// destination and the process that makes it.
func TestEachProblemIsNamed(t *testing.T) {
	t.Parallel()
	severity := map[diagnose.Slug]diagnose.Severity{
		"connection-churn":    diagnose.Info, // far from every limit
		"client-closes-first": diagnose.Info,
		"port-exhaustion":     diagnose.Critical,
		"tw-reuse":            diagnose.Warning,
		"time-wait-overflow":  diagnose.Critical,
		"fin-timeout":         diagnose.Warning,
		"close-wait-leak":     diagnose.Warning,

		"accept-queue-overflow": diagnose.Critical,
		"address-in-use":        diagnose.Warning,
		"bind-before-connect":   diagnose.Warning,
		"conntrack-full":        diagnose.Critical,
		"fin-wait2-pileup":      diagnose.Warning,
		"nat-port-exhaustion":   diagnose.Critical,
		"orphan-pileup":         diagnose.Warning,
		"resource-pressure":     diagnose.Warning,
		"syn-on-time-wait":      diagnose.Warning,
		"vanished-connections":  diagnose.Warning,
	}
	for _, s := range possible() {
		for _, ipv6 := range []bool{false, true} {
			t.Run(string(s.Slug)+"/"+stagetest.Family(ipv6), func(t *testing.T) {
				t.Parallel()
				ctx := stagetest.Context(t)
				b := build(t, s.Slug, cases.Options{IPv6: ipv6})
				wait(t, b.RipeAt)
				_, d := look(t, ctx, b.Topology.Nodes...)
				if len(d.Findings) == 0 {
					t.Fatalf("no finding; held:\n%s\nunknown:\n%s", describe(d.Absent), describe(d.Unknown))
				}
				f := d.Findings[0]
				if f.Problem != s.Slug {
					t.Fatalf("first finding is %s, want %s:\n%s", f.Problem, s.Slug, headlines(d))
				}
				check(t, f, b.Expect)
				if f.Severity != severity[s.Slug] {
					t.Errorf("severity %s, want %s: %s", f.Severity, severity[s.Slug], f.Summary)
				}
				if t.Failed() {
					t.Logf("finding:\n%s", describe(f))
				}
			})
		}
	}
}

// possible are the scenarios that this kernel can build. The others' rules are
// tested on fixtures.
func possible() (scenarios []cases.Scenario) {
	for _, c := range cases.All() {
		if c.Scenario != nil && c.Scenario.Cannot == "" {
			scenarios = append(scenarios, *c.Scenario)
		}
	}
	return scenarios
}

// A kernel from 4.12 on has no tcp_tw_recycle: this is all that cannot be built.
func TestWhatCannotBeBuilt(t *testing.T) {
	for _, c := range cases.All() {
		s := c.Scenario
		if s == nil || s.Cannot == "" {
			continue
		}
		_, err := s.Build(t.Context(), cases.Options{})
		if s.Slug != "tw-recycle" || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", s.Slug, err)
		}
	}
}

// Churn is a warning where it fills three tenths of a limit.
func TestTightLimitsMakeChurnAWarning(t *testing.T) {
	t.Parallel()
	for _, slug := range []diagnose.Slug{"connection-churn", "client-closes-first"} {
		t.Run(string(slug), func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			b := build(t, slug, cases.Options{Tight: true})
			wait(t, b.RipeAt)
			_, d := look(t, ctx, b.Topology.Nodes...)
			if len(d.Findings) == 0 || d.Findings[0].Problem != slug || d.Findings[0].Severity != diagnose.Warning {
				t.Fatalf("want a warning of %s:\n%s", slug, headlines(d))
			}
			check(t, d.Findings[0], b.Expect)
		})
	}
}

// The time left is when the kernel really runs out of ports.
func TestPortsRunOutWhenForetold(t *testing.T) {
	t.Parallel()
	const ports, perSecond = 800, 40
	const slack = 8 * time.Second // the mean over 20 s would be 18 s late
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	node := topology.Nodes[0]
	if err := node.Set("net.ipv4.ip_local_port_range", fmt.Sprintf("40000 %d", 40000+ports-1)); err != nil {
		t.Fatal(err)
	}
	if err := client.Begin(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Rate: perSecond, Batch: 1}); err != nil {
		t.Fatal(err)
	}
	used := func() int {
		all := stagetest.Rows(t, node)
		return len(all)
	}
	await := func(n int) {
		for used() < n {
			if ctx.Err() != nil {
				t.Fatalf("%d of %d ports are used: %v", used(), n, ctx.Err())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	await(ports * 2 / 5)
	s, d := look(t, ctx, topology.Nodes...)
	if len(d.Findings) == 0 || d.Findings[0].Problem != diagnose.PortExhaustion || d.Findings[0].SecondsLeft == nil {
		t.Fatalf("no time left is told:\n%s", headlines(d))
	}
	foretold := s.TakenAt.Add(time.Duration(*d.Findings[0].SecondsLeft * float64(time.Second)))
	await(ports)
	if late := time.Since(foretold); late.Abs() > slack {
		t.Errorf("the ports ran out %s after the time that was foretold", late)
	}
	// They are used up for good: the first come back after a minute.
	wait(t, time.Now().Add(time.Second))
	if done, err := client.End(ctx); err != nil || done.NoPort == 0 {
		t.Errorf("no connect failed: %+v, %v", done, err)
	}
}

func check(t *testing.T, f diagnose.Finding, want cases.Expectation) {
	t.Helper()
	if f.Netns.Inode != want.Node.Inode() {
		t.Errorf("namespace %d, want %d of %s", f.Netns.Inode, want.Node.Inode(), want.Node.Name)
	}
	got := diagnose.Subject{Role: f.Subject.Role, Local: f.Subject.Local, Remote: f.Subject.Remote}
	if subject := (diagnose.Subject{Role: want.Role, Local: want.Local, Remote: want.Remote}); want.Role != "" && got != subject {
		t.Errorf("subject %+v, want %+v", got, subject)
	}
	if want.Owner != "" && !names(f.Owners, want.Owner) {
		t.Errorf("owners %+v do not name %s", f.Owners, want.Owner)
	}
}

func names(owners []snapshot.Owner, process string) bool {
	for _, o := range owners {
		if o.Process == process && o.PID > 0 {
			return true
		}
	}
	return false
}

// The cured state of each, on namespaces that have never had the problem.
func TestCuredIsNoAlarm(t *testing.T) {
	t.Parallel()
	for _, s := range possible() {
		t.Run(string(s.Slug), func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			b := build(t, s.Slug, cases.Options{Cured: true})
			wait(t, b.RipeAt)
			_, d := look(t, ctx, b.Topology.Nodes...)
			noAlarm(t, d)
		})
	}
}

// noAlarm allows what is only worth knowing.
func noAlarm(t testing.TB, d diagnose.Diagnosis) {
	t.Helper()
	for _, f := range d.Findings {
		if f.Severity != diagnose.Info {
			t.Errorf("%s: %s\n%s", f.Severity, f.Problem, headlines(d))
		}
	}
}

// Both ends lie in namespaces that are read: a finding on one end names the
// process at the other, and neither needs tracing for that.
func TestBothEndsAreKnown(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	b := build(t, "client-closes-first", cases.Options{})
	wait(t, b.RipeAt)
	s, _ := look(t, ctx, b.Topology.Nodes...)
	ends := map[tcp.Role]string{tcp.Connector: "lab-client", tcp.Acceptor: "lab-server"}
	for _, ns := range s.Namespaces {
		for _, g := range ns.Groups {
			own, known := ends[g.Role]
			if !known {
				t.Errorf("role %s of %s → %s", g.Role, g.Local, g.Remote)
				continue
			}
			if !names(g.Owners, own) {
				t.Errorf("%s %s → %s: owners %+v do not name %s", g.Role, g.Local, g.Remote, g.Owners, own)
			}
			other := "lab-server"
			if own == other {
				other = "lab-client"
			}
			if g.Peer == nil || !names(g.Peer.Owners, other) {
				t.Errorf("%s %s → %s: peer %s does not name %s", g.Role, g.Local, g.Remote, describe(g.Peer), other)
			}
			if g.Peer != nil && g.Peer.Inode == ns.Inode {
				t.Errorf("%s %s → %s: its peer is in its own namespace", g.Role, g.Local, g.Remote)
			}
		}
	}
}

// awaitQuiet waits until nothing is left of a node's connections but TIME_WAIT: the
// server's ends close after the clients have gone on.
func awaitQuiet(t *testing.T, ctx context.Context, n *stage.Node) {
	t.Helper()
	for {
		all := stagetest.Rows(t, n)
		moving := slices.IndexFunc(all, func(r stagetest.Row) bool { return r.State != tcp.TimeWait })
		if moving < 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%v is still in %s: %v", all[moving].Local, all[moving].State, ctx.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The command that counts a group's sockets by hand comes to what linger says, for
// either family: the load has ended, so that nothing moves.
func TestCheckByHandCounts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skipf("needs ss of Debian's iproute2: %v", err)
	}
	ctx := stagetest.Context(t)
	topology, client, server, _ := pairOf(t, stage.CloseSecond)
	const closes = 2000 // enough for a finding, where late resets end some too
	for _, ipv6 := range []bool{false, true} {
		service := netip.AddrPortFrom(topology.Nodes[1].Addr(ipv6), 9090)
		if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service},
			Close: stage.CloseSecond}); err != nil {
			t.Fatal(err)
		}
		if done, err := client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: closes}); err != nil ||
			done.Opened != closes {
			t.Fatalf("churn: %+v, %v", done, err)
		}
	}
	awaitQuiet(t, ctx, topology.Nodes[0])
	_, d := look(t, ctx, topology.Nodes[0])
	counted := 0
	for _, f := range d.Findings {
		for _, e := range f.Evidence {
			if e.Unit != "sockets" || !strings.HasSuffix(e.Check, "wc -l") {
				continue
			}
			out, err := exec.CommandContext(ctx, "sh", "-c", e.Check).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(e.Value) {
				t.Errorf("%s: %s\n%s, %v; want %v", e.Name, e.Check, got, err, e.Value)
			}
			counted++
		}
	}
	if counted != 2 {
		t.Errorf("%d counts were checked, want one of each family:\n%s", counted, headlines(d))
	}
}
