package trace

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
	"linger/internal/tcp"
)

// follow starts a tracer for a test.
func follow(t *testing.T, o Options) *Tracer {
	t.Helper()
	tr, err := Load(o)
	if err != nil {
		t.Skip("no tracing here: ", err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	if tr.Missing() != nil {
		t.Error(tr.Missing())
	}
	return tr
}

// who is how a test names a group.
type who struct {
	process string
	role    tcp.Role
}

// groupsOf are the groups of a namespace.
func groupsOf(t *testing.T, tr *Tracer, ns Netns) map[who]Group {
	t.Helper()
	found := map[who]Group{}
	err := tr.Groups(func(g *Group) {
		if g.Netns == ns {
			found[who{g.Process, g.Role}] = *g
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// tally is what a test expects of a group.
type tally map[string]uint64

func (g Group) summary() tally {
	c := tally{}
	put := func(name string, n uint64) {
		if n > 0 {
			c[name] = n
		}
	}
	for e, n := range g.Endings {
		put(Ending(e).String(), n)
	}
	put("opened", g.Opened)
	put("bound", g.Bound)
	put("handed-over", g.ToTimeWait+g.ToFinWait2)
	put("resets-received", g.ResetsReceived)
	put("untimed", g.Untimed)
	put("untracked", g.Untracked)
	put("live", uint64(g.Live))
	return c
}

// agrees tells whether the counts of a group are as wanted. Ends are counted to the last, whatever
// was missed. A missed event leaves a life that is not known, or never an end of it, and may cost
// one that was handed over, the opening of an accepted connection, or the sight of a reset
// (docs/tracing.md): so few may be without these as were left so, a batch of segments at most, and one in ten.
func (want tally) agrees(have tally) bool {
	lost := uint64(0)
	for _, name := range []string{"untimed", "live"} {
		lost += have[name] - min(have[name], want[name])
	}
	if lost > few(want["opened"]) {
		return false
	}
	for e := range Ending(Endings) {
		if have[e.String()] != want[e.String()] {
			return false
		}
	}
	for name, may := range map[string]uint64{
		"opened": lost, "handed-over": lost, "live": 0, "bound": 0, "untracked": 0, "resets-received": few(want["resets-received"]),
	} {
		if name == "live" && want[name] == 0 {
			continue
		}
		if have[name] > want[name] || have[name]+may < want[name] {
			return false
		}
	}
	return true
}

// few is how many of a number may be missed: a softirq brings 64 segments at most (NAPI_POLL_WEIGHT).
func few(n uint64) uint64 { return min(n/10, 64) }

// eventually polls until the groups of a namespace are as wanted: sockets go their last
// steps after the programs have ended.
func eventually(t *testing.T, tr *Tracer, ns Netns, want map[who]tally) map[who]Group {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		found := groupsOf(t, tr, ns)
		have := map[who]tally{}
		good := true
		for w, g := range found {
			if c := g.summary(); len(c) > 0 {
				have[w] = c
				good = good && want[w] != nil
			}
		}
		for w, c := range want {
			good = good && c.agrees(have[w])
		}
		if good {
			return found
		}
		if time.Now().After(deadline) {
			missed, err := tr.Missed()
			t.Fatalf("the groups are\n%v\nwant\n%v\nmissed events: %d %v", have, want, missed, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const connections = 200

func TestWhoClosed(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		for _, c := range []struct {
			name           string
			server, client string // what each does
			want           map[who]tally
		}{
			{"the client closes first", "wait", "close", map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": connections, "closed-there": connections},
				{"the-client", tcp.Connector}: {"opened": connections, "closed-here": connections, "handed-over": connections},
			}},
			{"the server closes first", "close", "wait", map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": connections, "closed-here": connections, "handed-over": connections},
				{"the-client", tcp.Connector}: {"opened": connections, "closed-there": connections},
			}},
			{"the client resets", "wait", "reset", map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": connections, "reset-there": connections, "resets-received": connections},
				{"the-client", tcp.Connector}: {"opened": connections, "aborted-here": connections},
			}},
			{"the server resets", "reset", "wait", map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": connections, "aborted-here": connections},
				{"the-client", tcp.Connector}: {"opened": connections, "reset-there": connections, "resets-received": connections},
			}},
			{"the server ignores what was sent", "ignore", "send", map[who]tally{
				{"the-server", tcp.Acceptor}:  {"opened": connections, "aborted-here": connections},
				{"the-client", tcp.Connector}: {"opened": connections, "reset-there": connections, "resets-received": connections},
			}},
		} {
			t.Run(address+" "+c.name, func(t *testing.T) {
				t.Parallel()
				ns, id := newNamespace(t)
				serverCgroup, serverNumber := newCgroup(t)
				clientCgroup, clientNumber := newCgroup(t)
				tr := follow(t, Options{Netns: []Netns{id}})
				to := net.JoinHostPort(address, "8000")
				server := peer{Listen: to, Count: connections, Do: c.server}.start(t, ns, serverCgroup, "the-server")
				server.says(t, "ready")
				client := peer{Dial: to, Count: connections, Do: c.client}.start(t, ns, clientCgroup, "the-client")
				client.ends(t)
				server.ends(t)
				found := eventually(t, tr, id, c.want)
				a, b := found[who{"the-server", tcp.Acceptor}], found[who{"the-client", tcp.Connector}]
				if a.Cgroup != serverNumber || b.Cgroup != clientNumber {
					t.Errorf("the cgroups are %d and %d, want %d and %d", a.Cgroup, b.Cgroup, serverNumber, clientNumber)
				}
				if a.Local.String() != to || b.Remote.String() != to || b.Local.String() != address {
					t.Errorf("the services are %v and %v → %v, want %s", a.Local, b.Local, b.Remote, to)
				}
			})
		}
	}
}

// TestAcrossNamespaces: each end of a connection counts in its own namespace, and others do not where
// some are chosen.
func TestAcrossNamespaces(t *testing.T) {
	left, leftID := newNamespace(t)
	right, rightID := newNamespace(t)
	other, otherID := newNamespace(t)
	ip := func(ns *netns.Handle, args ...string) {
		t.Helper()
		if err := ns.Do(func() error {
			out, err := exec.Command("ip", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %v: %w: %s", args, err, out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	ip(left, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), right.FD()))
	for host, ns := range map[string]*netns.Handle{"1": left, "2": right} {
		ip(ns, "addr", "add", "10.7.0."+host+"/24", "dev", "wire")
		ip(ns, "addr", "add", "fd07::"+host+"/64", "dev", "wire", "nodad")
		ip(ns, "link", "set", "wire", "up")
	}
	tr := follow(t, Options{Netns: []Netns{leftID, rightID}})
	for _, host := range []string{"10.7.0.2", "fd07::2"} {
		to := net.JoinHostPort(host, "8000")
		s := peer{Listen: to, Count: connections, Do: "wait"}.start(t, right, "", "the-server")
		s.says(t, "ready")
		peer{Dial: to, Count: connections, Do: "close"}.start(t, left, "", "the-client "+host[:4]).ends(t)
		s.ends(t)
	}
	s := peer{Listen: "127.0.0.1:8000", Count: 1, Do: "wait"}.start(t, other, "", "the-server")
	s.says(t, "ready")
	peer{Dial: "127.0.0.1:8000", Count: 1, Do: "close"}.start(t, other, "", "the-client").ends(t)
	s.ends(t)
	closed := tally{"opened": connections, "closed-here": connections, "handed-over": connections}
	eventually(t, tr, leftID, map[who]tally{{"the-client 10.7", tcp.Connector}: closed, {"the-client fd07", tcp.Connector}: closed})
	var opened uint64
	for _, at := range []netip.Addr{netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("fd07::2")} {
		if err := tr.Groups(func(g *Group) {
			if g.Netns == rightID && g.Local.Addr == at && g.Process == "the-server" && g.Role == tcp.Acceptor {
				opened += g.Opened
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if opened != 2*connections {
		t.Errorf("the server has accepted %d, want %d", opened, 2*connections)
	}
	if found := groupsOf(t, tr, otherID); len(found) > 0 {
		t.Errorf("a namespace that was not chosen is in %v", found)
	}
}

// TestNameAtTheEnd: who closes a connection is named as it is called then, and no longer as who listened.
func TestNameAtTheEnd(t *testing.T) {
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}})
	s := peer{Listen: "127.0.0.1:8000", Count: connections, Do: "close", Name: "the-renamed"}.start(t, ns, "", "the-server")
	s.says(t, "ready")
	peer{Dial: "127.0.0.1:8000", Count: connections, Do: "wait"}.start(t, ns, "", "the-client").ends(t)
	s.ends(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found := groupsOf(t, tr, id)
		before, after := found[who{"the-server", tcp.Acceptor}], found[who{"the-renamed", tcp.Acceptor}]
		if after.Endings[ClosedHere] == connections && before.Endings[ClosedHere] == 0 && after.Opened > before.Opened {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("under the first name %v, under the second %v", before.summary(), after.summary())
		}
	}
}

// TestEndsWithoutClose: processes that end, or are killed, close what they have open, and what
// nobody has accepted is reset when its listener is closed.
func TestEndsWithoutClose(t *testing.T) {
	const to = "127.0.0.1:8000"
	server, client := who{"the-server", tcp.Acceptor}, who{"the-client", tcp.Connector}
	open := tally{"opened": connections, "live": connections}
	for _, c := range []struct {
		name string
		do   string // what the server does
		end  func(*testing.T, *running)
		want map[who]tally
	}{
		{"the server exits", "hold", func(t *testing.T, r *running) { r.ends(t) }, map[who]tally{
			server: {"opened": connections, "closed-here": connections, "handed-over": connections},
			client: {"opened": connections, "closed-there": connections, "live": connections},
		}},
		{"the server is killed", "hold", func(_ *testing.T, r *running) { r.Process.Kill() }, map[who]tally{
			server: {"opened": connections, "closed-here": connections, "handed-over": connections},
			client: {"opened": connections, "closed-there": connections, "live": connections},
		}},
		{"the listener closes", "never accept", func(t *testing.T, r *running) { r.ends(t) }, map[who]tally{
			server: {"opened": connections, "aborted-here": connections},
			client: {"opened": connections, "reset-there": connections, "resets-received": connections},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns, id := newNamespace(t)
			tr := follow(t, Options{Netns: []Netns{id}})
			// Room for those that nobody accepts.
			netnstest.Set(t, ns, "net.ipv4.tcp_max_syn_backlog", "4096")
			if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/core/somaxconn", []byte("4096"), 0) }); err != nil {
				t.Fatal(err)
			}
			s := peer{Listen: to, Count: connections, Do: c.do}.start(t, ns, "", server.process)
			s.says(t, "ready")
			peer{Dial: to, Count: connections, Do: "hold"}.start(t, ns, "", client.process).says(t, "holding")
			eventually(t, tr, id, map[who]tally{server: open, client: open})
			if c.do == "hold" {
				s.says(t, "holding") // all are accepted: the others would be reset
			}
			const held = 300 * time.Millisecond
			time.Sleep(held) // so long do they live
			c.end(t, s)
			ended := eventually(t, tr, id, c.want)[server]
			for step, n := range ended.Life {
				if n > 0 && LifeStep(step+1) < uint64(held.Microseconds()) {
					t.Errorf("%d lived for less than %d us", n, LifeStep(step+1))
				}
			}
		})
	}
}

// TestConnectFails: the reasons for which connect() fails, told apart.
func TestConnectFails(t *testing.T) {
	server, client := who{"the-server", tcp.Acceptor}, who{"the-client", tcp.Connector}
	t.Run("no port, and none of the bound ones", func(t *testing.T) {
		ns, id := newNamespace(t)
		netnstest.Set(t, ns, "net.ipv4.ip_local_port_range", "40000 40099")
		tr := follow(t, Options{Netns: []Netns{id}})
		peer{Listen: "127.0.0.1:8000", Count: 100, Do: "hold"}.start(t, ns, "", server.process).says(t, "ready")
		peer{Dial: "127.0.0.1:8000", Count: 130, Do: "hold"}.start(t, ns, "", client.process).says(t, "holding")
		eventually(t, tr, id, map[who]tally{
			server: {"opened": 100, "live": 100},
			// Go tries each of the 30 three times (internetSocket of net/tcpsock_posix.go).
			client: {"opened": 100, "live": 100, "no-port": 90},
		})
	})
	t.Run("refused", func(t *testing.T) {
		ns, id := newNamespace(t)
		tr := follow(t, Options{Netns: []Netns{id}})
		peer{Dial: "[::1]:9", Count: 50, Do: "close"}.start(t, ns, "", client.process).ends(t)
		found := eventually(t, tr, id, map[who]tally{client: {"refused": 50}})
		if none := found[who{"", tcp.RoleUnknown}]; sent(tr, none)["no_socket"] != 50 {
			t.Errorf("resets sent for no socket: %v, want 50", sent(tr, none))
		}
	})
	t.Run("unanswered", func(t *testing.T) {
		ns, id := newNamespace(t)
		tr := follow(t, Options{Netns: []Netns{id}})
		netnstest.Set(t, ns, "net.ipv4.tcp_syn_retries", "1")
		// What comes in by lo for an address that is not local is dropped.
		if err := ns.Do(exec.Command("ip", "route", "add", "10.9.9.9", "dev", "lo").Run); err != nil {
			t.Fatal(err)
		}
		peer{Dial: "10.9.9.9:7", Count: 1, Do: "close"}.start(t, ns, "", client.process).ends(t)
		eventually(t, tr, id, map[who]tally{client: {"unanswered": 1}})
	})
	t.Run("bound before connect", func(t *testing.T) {
		ns, id := newNamespace(t)
		tr := follow(t, Options{Netns: []Netns{id}})
		s := peer{Listen: "127.0.0.1:8000", Count: 60, Do: "wait"}.start(t, ns, "", server.process)
		s.says(t, "ready")
		peer{Dial: "127.0.0.1:8000", Count: 60, Do: "close", Source: "127.0.0.1"}.start(t, ns, "", client.process).ends(t)
		s.ends(t)
		eventually(t, tr, id, map[who]tally{
			server: {"opened": 60, "closed-there": 60},
			client: {"opened": 60, "bound": 60, "closed-here": 60, "handed-over": 60},
		})
	})
}

func sent(tr *Tracer, g Group) map[string]uint64 {
	reasons := map[string]uint64{}
	for number, n := range g.ResetsSent {
		if n > 0 {
			reasons[tr.Reason(number)] = n
		}
	}
	return reasons
}

// TestReasonsOfResets: why this end sent a reset, in the kernel's words.
func TestReasonsOfResets(t *testing.T) {
	for _, c := range []struct{ server, client, want string }{
		{"reset", "wait", "tcp_state"},
		{"ignore", "send", "tcp_abort_on_close"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			ns, id := newNamespace(t)
			tr := follow(t, Options{Netns: []Netns{id}})
			s := peer{Listen: "127.0.0.1:8000", Count: 20, Do: c.server}.start(t, ns, "", "the-server")
			s.says(t, "ready")
			peer{Dial: "127.0.0.1:8000", Count: 20, Do: c.client}.start(t, ns, "", "the-client").ends(t)
			s.ends(t)
			server := who{"the-server", tcp.Acceptor}
			found := eventually(t, tr, id, map[who]tally{
				server:                        {"opened": 20, "aborted-here": 20},
				{"the-client", tcp.Connector}: {"opened": 20, "reset-there": 20, "resets-received": 20},
			})
			if have := sent(tr, found[server]); len(have) != 1 || have[c.want] != 20 {
				t.Errorf("the reasons are %v, want 20 times %s", have, c.want)
			}
		})
	}
}

// TestOverflow: what the tables have no place for is counted all the same, as other or as of a life
// that is not known, and in no other group.
func TestOverflow(t *testing.T) {
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}, MaxGroups: 3, MaxConnections: 16})
	const servers, each = 8, 20
	for i := range servers {
		to := fmt.Sprintf("127.0.0.1:%d", 8000+i)
		s := peer{Listen: to, Count: each, Do: "wait"}.start(t, ns, "", fmt.Sprintf("server-%d", i))
		s.says(t, "ready")
		c := peer{Dial: to, Count: each, Do: "hold"}.start(t, ns, "", fmt.Sprintf("client-%d", i))
		c.says(t, "holding")
		c.ends(t)
		s.ends(t)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var opened, here, there, untracked, untimed, lives, other uint64
		groups := 0
		if err := tr.Groups(func(g *Group) {
			opened += g.Opened
			here += g.Endings[ClosedHere]
			there += g.Endings[ClosedThere]
			untracked += g.Untracked
			untimed += g.Untimed
			for _, n := range g.Life {
				lives += uint64(n)
			}
			if g.Number == 0 {
				other = g.Opened
			} else {
				groups++
			}
		}); err != nil {
			t.Fatal(err)
		}
		const n = servers * each
		if opened == 2*n && here == n && there == n && untimed+lives == 2*n && untracked > 0 && untimed > 0 && other > 0 && groups == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d groups count %d opened, %d of them as other, %d closed here and %d there, %d lives and %d unknown, "+
				"%d without a place; want %d of each end",
				groups, opened, other, here, there, lives, untimed, untracked, n)
		}
	}
}

// TestMissedEnds: sockets whose ends were missed do not stand in the way of those that get their
// place in memory.
func TestMissedEnds(t *testing.T) {
	ns, id := newNamespace(t)
	tr := follow(t, Options{Netns: []Netns{id}})
	hold := func(server, client string) {
		s := peer{Listen: "127.0.0.1:8000", Count: connections, Do: "hold"}.start(t, ns, "", server)
		s.says(t, "ready")
		c := peer{Dial: "127.0.0.1:8000", Count: connections, Do: "hold"}.start(t, ns, "", client)
		c.says(t, "holding")
		s.says(t, "holding")
		if server == "missed-server" {
			tr.detach(t)
		}
		c.ends(t)
		s.ends(t)
	}
	open := tally{"opened": connections, "live": connections}
	missedServer, missedClient := who{"missed-server", tcp.Acceptor}, who{"missed-client", tcp.Connector}
	hold(missedServer.process, missedClient.process)
	eventually(t, tr, id, map[who]tally{missedServer: open, missedClient: open})
	if err := tr.attach(); err != nil {
		t.Fatal(err)
	}
	// Sockets of the next ones are made where those were.
	for deadline := time.Now().Add(patience); ; {
		hold("the-server", "the-client")
		found := groupsOf(t, tr, id)
		a, b := found[missedServer], found[missedClient]
		if a.known() != connections || b.known() != connections {
			t.Fatalf("those that were missed are %v and %v", a.summary(), b.summary())
		}
		server, client := found[who{"the-server", tcp.Acceptor}], found[who{"the-client", tcp.Connector}]
		if server.Opened != client.Opened || server.Opened%connections != 0 {
			t.Fatalf("the others are %v and %v", server.summary(), client.summary())
		}
		if a.Untimed > 0 && b.Untimed > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no socket has got the place of one before")
		}
	}
	found := groupsOf(t, tr, id)
	n := found[who{"the-client", tcp.Connector}].Opened
	eventually(t, tr, id, map[who]tally{
		missedServer: found[missedServer].summary(), missedClient: found[missedClient].summary(),
		{"the-server", tcp.Acceptor}:  {"opened": n, "closed-there": n},
		{"the-client", tcp.Connector}: {"opened": n, "closed-here": n, "handed-over": n},
	})
}

// known are the connections of a group that are open, or have ended, or whose end was missed.
func (g Group) known() uint64 {
	n := uint64(g.Live) + g.Untimed
	for _, ended := range g.Endings {
		n += ended
	}
	return n
}

// detach takes the programs from their tracepoints, so that what happens is missed.
func (t *Tracer) detach(test *testing.T) {
	test.Helper()
	for _, l := range t.links {
		if err := l.Close(); err != nil {
			test.Fatal(err)
		}
	}
	t.links = nil
}
