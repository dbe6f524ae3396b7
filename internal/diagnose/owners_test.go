package diagnose

import (
	"slices"
	"strings"
	"testing"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ownedBy is a process that has connections of a group.
func ownedBy(process string, how snapshot.How) snapshot.Owner {
	return snapshot.Owner{Process: process, PID: 7, How: how, Sockets: 50}
}

func processes(owners []snapshot.Owner) string {
	var names []string
	for _, o := range owners {
		names = append(names, o.Process)
	}
	return strings.Join(names, " ")
}

// No process has an orphan: a pool to the same destination is not to blame for it, but
// who was seen to close it is, and the service that it belongs to.
func TestOrphansBelongToNoPool(t *testing.T) {
	closer := ownedBy("closer", snapshot.Seen)
	closer.Traced = &snapshot.TracedSums{}
	pool, service := ownedBy("pool", snapshot.Seen), ownedBy("service", snapshot.Listening)
	for _, tt := range []struct {
		name  string
		group snapshot.Group
		want  string
	}{
		{"FIN_WAIT2", halfClosed(200, 0), "closer service"},
		{"FIN_WAIT2, some with a program", halfClosed(200, 1), "pool closer service"},
		{"FIN_WAIT1", dying(200, 200), "closer service"},
	} {
		g := tt.group
		g.States[tcp.Established] = 300
		g.InRange = g.States
		g.Owners = []snapshot.Owner{pool, closer, service}
		d := Judge(world(with(g)), DefaultThresholds())
		if len(d.Findings) == 0 || processes(d.Findings[0].Owners) != tt.want {
			t.Errorf("%s: %v, owners %q, want %q", tt.name, told(d), processes(d.Findings[0].Owners), tt.want)
		}
	}
}

// Of two programs with connections to one service, the one that binds is named.
func TestWhoBindsIsNamed(t *testing.T) {
	g := odd(9000, 8000)
	g.Owners = []snapshot.Owner{ownedBy("pool", snapshot.Seen), ownedBy("binder", snapshot.Seen)}
	g.OtherParityOwners = []snapshot.Owner{ownedBy("binder", snapshot.Seen)}
	d := Judge(world(with(g)), DefaultThresholds())
	if len(d.Findings) == 0 || d.Findings[0].Problem != BindBeforeConnect {
		t.Fatalf("want %s first: %v", BindBeforeConnect, told(d))
	}
	if f := d.Findings[0]; processes(f.Owners) != "binder" || !strings.HasPrefix(f.Summary, "binder binds") {
		t.Errorf("owners %q: %s", processes(f.Owners), f.Summary)
	}
}

// Where two processes may have made what waits, neither is called the one.
func TestSeveralThatItMayBe(t *testing.T) {
	g := connector(client, "10.0.0.3:80", 60, 10_000, nil)
	g.Owners = []snapshot.Owner{ownedBy("pool", snapshot.Inferred), ownedBy("batch", snapshot.Inferred)}
	d := Judge(world(set(keyReuse, "0"), with(g)), DefaultThresholds())
	ofTwo := func(u string) bool { return strings.HasPrefix(u, "which of the 2 processes") }
	if len(d.Findings) == 0 || !slices.ContainsFunc(d.Findings[0].Unsure, ofTwo) {
		t.Errorf("%v: unsure of %q", told(d), d.Findings[0].Unsure)
	}
}

// Who aborts is named before who is told of it, though it be few of what it opens.
func TestWhoAbortsIsNamed(t *testing.T) {
	// peer is a namespace beside that aborts so many of five hundred connections.
	peer := func(aborts uint64) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			beside(7, "shop")(s)
			was := map[string]uint64{estabResets: aborts, "TcpPassiveOpens": 500, "TcpExtTCPAbortOnData": aborts}
			s.Namespaces[0], s.Namespaces[1] = s.Namespaces[1], s.Namespaces[0]
			rose(was)(s)
			s.Namespaces[0], s.Namespaces[1] = s.Namespaces[1], s.Namespaces[0]
		}
	}
	for _, tt := range []struct {
		name   string
		aborts uint64
		first  string
	}{
		{"as many as the client was told of", 15, "pod shop"},
		{"half as many", 8, "pod shop"},
		{"fewer: they come from elsewhere", 7, "host"},
	} {
		d := Judge(world(rose(map[string]uint64{estabResets: 15, "TcpActiveOpens": 15}), peer(tt.aborts)), DefaultThresholds())
		if len(d.Findings) == 0 || d.Findings[0].Problem != VanishedConnections || d.Findings[0].Netns.Label != tt.first {
			t.Errorf("%s: %v", tt.name, told(d))
		}
	}
	// Without anybody who is told of them they are the accidents of a busy host.
	if d := Judge(world(peer(15)), DefaultThresholds()); len(d.Findings) != 0 {
		t.Errorf("nobody was told: %v", told(d))
	}
}

// Where both ends of connections that are reset were traced in one namespace, the end is named that
// the summary is about.
func TestTheTracedEndOfAReset(t *testing.T) {
	for _, tt := range []struct {
		aborts  uint64 // that the namespace's own counters know of
		process string
	}{{40, "impatient"}, {0, "server"}} {
		traced := func(s *snapshot.Snapshot) {
			ns := &s.Namespaces[0]
			s.TracedMS = 1000
			ns.Traced = (snapshot.TracedCounts{AbortedHere: 40, ResetThere: 41}).Sums()
			ns.TracedGroups = []snapshot.TracedGroup{
				{TracedKey: snapshot.TracedKey{Process: "server", Role: tcp.Acceptor}, TracedCounts: snapshot.TracedCounts{ResetThere: 41}},
				{TracedKey: snapshot.TracedKey{Process: "impatient", Role: tcp.Connector}, TracedCounts: snapshot.TracedCounts{AbortedHere: 40}},
			}
		}
		resets := rose(map[string]uint64{estabResets: 80, "TcpActiveOpens": 80, "TcpExtTCPAbortOnData": tt.aborts})
		d := Judge(world(resets, traced), DefaultThresholds())
		if len(d.Findings) != 1 || d.Findings[0].Problem != VanishedConnections || processes(d.Findings[0].Owners) != tt.process {
			t.Errorf("with %d aborts from here: %+v, want %s", tt.aborts, d.Findings, tt.process)
		}
	}
}

// A connection that only its port tells to go out is named with that doubt.
func TestByPortIsADoubt(t *testing.T) {
	for _, byPort := range []bool{false, true} {
		s := world()
		s.Namespaces[0].Wanted = []snapshot.Wanted{{
			Service: endpoint("10.0.0.1:8080"), Asked: true,
			Outgoing: []snapshot.Connection{{
				Local: endpoint("10.0.0.1:8080"), Remote: endpoint("10.0.0.9:5432"), State: "ESTABLISHED", ByPort: byPort,
			}},
		}}
		d := Judge(s, DefaultThresholds())
		if len(d.Findings) != 1 {
			t.Fatal(told(d))
		}
		f := d.Findings[0]
		doubted := slices.ContainsFunc(f.Unsure, func(u string) bool { return strings.Contains(u, "5432 is none that a client") })
		if doubted != byPort || (f.Confidence == Medium) != byPort {
			t.Errorf("by port %v: confidence %s, unsure of %q", byPort, f.Confidence, f.Unsure)
		}
	}
}
