package lab_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ssStates are the names that ss prints. It shows a FIN_WAIT2 time-wait socket as
// FIN-WAIT-2.
var ssStates = map[string]tcp.State{
	"ESTAB": tcp.Established, "SYN-SENT": tcp.SynSent, "SYN-RECV": tcp.SynRecv,
	"FIN-WAIT-1": tcp.FinWait1, "FIN-WAIT-2": tcp.FinWait2, "TIME-WAIT": tcp.TimeWait,
	"CLOSE-WAIT": tcp.CloseWait, "LAST-ACK": tcp.LastAck, "LISTEN": tcp.Listen, "CLOSING": tcp.Closing,
}

// ss counts the sockets of a node by state, local and remote endpoint as Debian's
// ss prints them.
func ss(ctx context.Context, t *testing.T, n *stage.Node) map[stagetest.Row]int {
	t.Helper()
	path, err := exec.LookPath("ss")
	if err != nil {
		t.Skip("needs ss (Debian package iproute2)")
	}
	var out strings.Builder
	cmd := exec.CommandContext(ctx, path, "-Htan")
	cmd.Stdout = &out
	if err := n.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	counts := map[stagetest.Row]int{}
	for line := range strings.Lines(out.String()) {
		fields := strings.Fields(line)
		state, known := ssStates[fields[0]]
		if len(fields) < 5 || !known {
			t.Fatalf("ss printed %q", line)
		}
		local, err := ssEndpoint(fields[3])
		if err != nil {
			t.Fatal(err)
		}
		remote, err := ssEndpoint(fields[4])
		if err != nil {
			t.Fatal(err)
		}
		counts[stagetest.Row{Local: local, Remote: remote, State: state}]++
	}
	return counts
}

func ssEndpoint(text string) (netip.AddrPort, error) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		return netip.AddrPort{}, fmt.Errorf("endpoint %q", text)
	}
	host, port := strings.Trim(text[:at], "[]"), text[at+1:]
	if host == "*" { // a wildcard of both families
		host = "::"
	}
	if port == "*" {
		port = "0"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ap, err := netip.ParseAddrPort(host + ":" + port)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err
}

// linger counts what ss counts: by state, and for each group.
func TestSameCountsAsSs(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, server, first := pairOf(t, stage.CloseSecond)
	n := topology.Nodes[1]
	// A dual-stack wildcard listener, whose IPv4 clients are v4-mapped, and one of IPv6.
	wild := netip.AddrPortFrom(netip.IPv6Unspecified(), 8081)
	six := netip.AddrPortFrom(n.IPv6, 8082)
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{wild, six}, Close: stage.CloseFirst}); err != nil {
		t.Fatal(err)
	}
	leaking := netip.AddrPortFrom(n.IPv4, 8083)
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{leaking}, Close: stage.CloseNever}); err != nil {
		t.Fatal(err)
	}
	mapped := netip.AddrPortFrom(n.IPv4, wild.Port())
	for _, churn := range []stage.DialSpec{
		{To: []netip.AddrPort{first}, Count: 40},
		{To: []netip.AddrPort{mapped}, Count: 50, PeerCloses: true},
		{To: []netip.AddrPort{six}, Count: 60, PeerCloses: true},
		{To: []netip.AddrPort{leaking}, Count: 15},
	} {
		if done, err := client.Churn(ctx, churn); err != nil || done.Opened != churn.Count {
			t.Fatalf("churn: %+v, %v", done, err)
		}
	}
	if done, err := client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{first}, Count: 7}); err != nil || done.Opened != 7 {
		t.Fatalf("hold: %+v, %v", done, err)
	}

	for _, node := range topology.Nodes {
		// Sockets may move between two looks: what is the same before and after holds.
		var before, after map[stagetest.Row]int
		var s *snapshot.Snapshot
		for range 100 {
			before = ss(ctx, t, node)
			s, _ = look(t, ctx, node)
			if after = ss(ctx, t, node); maps.Equal(before, after) {
				break
			}
		}
		compareWithSs(t, node, s, before)
	}
}

func compareWithSs(t *testing.T, n *stage.Node, s *snapshot.Snapshot, truth map[stagetest.Row]int) {
	t.Helper()
	ns := s.Namespaces[0]
	var want tcp.States
	for r, count := range truth {
		want[r.State] += count
	}
	if diff := cmp.Diff(want, asSs(ns.States)); diff != "" {
		t.Errorf("%s: states of ss (-) and of linger (+):\n%s", n.Name, diff)
	}
	for _, g := range ns.Groups {
		var want tcp.States
		for r, count := range truth {
			if r.State == tcp.Listen || r.Local.Addr() != g.Local.Addr || g.Local.Port != 0 && r.Local.Port() != g.Local.Port {
				continue
			}
			if g.Remote.Addr.IsValid() && (r.Remote != netip.AddrPortFrom(g.Remote.Addr, g.Remote.Port)) {
				continue
			}
			want[r.State] += count
		}
		if diff := cmp.Diff(want, asSs(g.States)); diff != "" {
			t.Errorf("%s: group %s → %s, of ss (-) and of linger (+):\n%s", n.Name, g.Local, g.Remote, diff)
		}
	}
	if n.Name == "server" && len(ns.Groups) != 4 {
		t.Errorf("%d groups, want one for each service:\n%s", len(ns.Groups), describe(ns.Groups))
	}
}

// asSs counts as ss does.
func asSs(s tcp.States) tcp.States {
	s[tcp.FinWait2] += s[tcp.FinWait2TimeWait]
	s[tcp.FinWait2TimeWait] = 0
	return s
}
