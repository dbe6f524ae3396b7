package lab_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"linger/internal/diagnose"
	"linger/internal/kernel/conntrack"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
)

// idle is how many connections are left idle behind a firewall.
const idle = 20

// firewalled is a client with idle connections to a server, through a firewall that
// forgets them after so many seconds.
func firewalled(t *testing.T, ipv6 bool, forgetSeconds, keepAliveSeconds int) (*stage.Topology, *stage.Worker) {
	t.Helper()
	ctx := stagetest.Context(t)
	topology, _, err := stage.NewRouted(stage.Wiring{}, []string{"client"}, "firewall", "server")
	stagetest.NeedRoot(t, err)
	stagetest.Closing(t, topology)
	if err := topology.Nodes[1].RefuseUnknown(nftables.ChainHookForward); err != nil {
		t.Fatal(err)
	}
	if err := topology.Nodes[1].ForgetIdle(forgetSeconds); err != nil {
		t.Fatal(err)
	}
	// It does nothing: the namespace is called after it.
	if _, err := topology.Nodes[1].Start(ctx, "lab-firewall"); err != nil {
		t.Fatal(err)
	}
	server, err := topology.Nodes[2].Start(ctx, "lab-server")
	if err != nil {
		t.Fatal(err)
	}
	service := []netip.AddrPort{netip.AddrPortFrom(topology.Nodes[2].Addr(ipv6), 8080)}
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: service, Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	client, err := topology.Nodes[0].Start(ctx, "lab-client")
	if err != nil {
		t.Fatal(err)
	}
	done, err := client.Hold(ctx, stage.DialSpec{To: service, Count: idle, KeepAliveSeconds: keepAliveSeconds})
	if err != nil || done.Opened != idle {
		t.Fatalf("hold: %+v, %v", done, err)
	}
	return topology, client
}

// tracked counts the connections that a node's connection tracking has established: the
// kernel leaves out those whose time is over.
func tracked(t *testing.T, ctx context.Context, n *stage.Node) (established int) {
	t.Helper()
	err := n.Do(func() error {
		_, err := conntrack.Sample(ctx, 1000, func(f conntrack.Flow) {
			if f.State == "established" {
				established++
			}
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return established
}

// A firewall between two hosts forgets idle connections. Both hosts have them in
// ESTABLISHED, and what the client sends is dropped: the finding is on the client, and
// names the firewall.
func TestAFirewallThatForgetsIsNamed(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(stagetest.Family(ipv6), func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			topology, client := firewalled(t, ipv6, 2, 0)
			firewall := topology.Nodes[1]
			for tracked(t, ctx, firewall) > 0 {
				time.Sleep(50 * time.Millisecond)
			}
			if _, d := look(t, ctx, topology.Nodes...); slices.IndexFunc(d.Findings, vanished) >= 0 {
				t.Errorf("nothing was sent, and nobody can know yet:\n%s", headlines(d))
			}
			if done, err := client.Probe(ctx, 100*time.Millisecond); err != nil || done.Failed != idle {
				t.Fatalf("probe: %+v, %v; want no answer on any", done, err)
			}
			// Sent again after 0.2, 0.6, 1.4, 3 and 6.2 s: one reading of a second sees
			// three retries, and segments that the firewall drops meanwhile.
			var f diagnose.Finding
			for deadline := time.Now().Add(30 * time.Second); ; {
				_, d := look(t, ctx, topology.Nodes...)
				if slices.IndexFunc(d.Findings, vanished) == 0 && evidence(d.Findings[0], "conntrack invalid rise") > 0 {
					f = d.Findings[0]
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the firewall is not named:\n%s\n%s", headlines(d), describe(d.Findings))
				}
			}
			server := topology.Nodes[2].Addr(ipv6)
			if f.Netns.Inode != topology.Nodes[0].Inode() || f.Severity != diagnose.Warning || !f.FailingNow ||
				f.Subject.Remote.Addr != server || f.Subject.Remote.Port != 8080 || !names(f.Owners, "lab-client") {
				t.Errorf("want a warning on the client's connections to %s", server)
			}
			if got := evidence(f, "without an answer"); got != idle {
				t.Errorf("%v without an answer, want %d", got, idle)
			}
			if got := evidence(f, "conntrack keeps established"); got != 2 {
				t.Errorf("it keeps established for %v s, want 2", got)
			}
			if !strings.Contains(f.Why, "tracking in process lab-firewall (pid ") ||
				!strings.Contains(f.Why, "forgets an idle connection after 2 s") {
				t.Error("the firewall's namespace is not named")
			}
			if !slices.Contains(f.Remedies, diagnose.ProbeIdle) {
				t.Errorf("remedies %v", f.Remedies)
			}
			if t.Failed() {
				t.Logf("finding:\n%s", describe(f))
			}
		})
	}
}

func vanished(f diagnose.Finding) bool { return f.Problem == diagnose.VanishedConnections }

// evidence is the value of a finding's evidence of that name, -1 where it has none.
func evidence(f diagnose.Finding, name string) float64 {
	for _, e := range f.Evidence {
		if e.Name == name {
			return e.Value
		}
	}
	return -1
}

// The cures: probes below the firewall's time-out, or a longer one. The connections are
// idle for longer than it took to lose them, and still answer.
func TestAFirewallThatIsReminded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ forgetSeconds, keepAliveSeconds int }{
		"keep-alive": {4, 1}, "longer time-out": {600, 0},
	} {
		for _, ipv6 := range []bool{false, true} {
			t.Run(name+", "+stagetest.Family(ipv6), func(t *testing.T) {
				t.Parallel()
				ctx := stagetest.Context(t)
				topology, client := firewalled(t, ipv6, c.forgetSeconds, c.keepAliveSeconds)
				wait(t, time.Now().Add(5*time.Second))
				if got := tracked(t, ctx, topology.Nodes[1]); got != idle {
					t.Errorf("the firewall knows %d connections, want %d", got, idle)
				}
				if done, err := client.Probe(ctx, 10*time.Second); err != nil || done.Failed != 0 {
					t.Errorf("probe: %+v, %v; want an answer on each", done, err)
				}
				_, d := look(t, ctx, topology.Nodes...)
				noAlarm(t, d)
			})
		}
	}
}
