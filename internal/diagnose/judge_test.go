package diagnose

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// told is what a diagnosis comes to, without its words: "severity slug", with what
// is folded under it in brackets, then what could not be told.
func told(d Diagnosis) []string {
	lines := []string{}
	for _, f := range d.Findings {
		line := fmt.Sprintf("%s %s", f.Severity, f.Problem)
		if f.CausedBy != "" {
			line += " <- " + string(f.CausedBy)
		}
		for _, r := range f.Related {
			line += fmt.Sprintf(" [%s %s]", r.Severity, r.Problem)
		}
		lines = append(lines, line)
	}
	for _, u := range d.Unknown {
		lines = append(lines, "? "+string(u.Problem))
	}
	return lines
}

const (
	client  = "10.0.0.1"
	service = "10.0.0.2:80"
)

func TestJudge(t *testing.T) {
	lots := func(n, seconds int) snapshot.Group { return connector(client, service, 10, n, steady(n, seconds)) }
	type changes = []func(*snapshot.Snapshot)
	for _, tt := range []struct {
		name    string
		changes changes
		want    []string
	}{
		{"an idle host", nil, nil},

		// port-exhaustion
		{
			"the ports are used up",
			changes{with(lots(28222, 60)), set(keyReuse, "0")},
			[]string{"critical port-exhaustion <- client-closes-first [warning client-closes-first] [warning tw-reuse]"},
		},
		{
			"an onset that will use them up",
			changes{with(lots(14400, 20)), set(keyReuse, "0")},
			[]string{"critical port-exhaustion <- client-closes-first [warning client-closes-first] [warning tw-reuse]"},
		},
		{
			"six tenths are used",
			changes{with(lots(16930, 60)), set(keyReuse, "0")},
			[]string{"warning port-exhaustion <- client-closes-first [warning client-closes-first] [warning tw-reuse]"},
		},
		{
			"just below six tenths",
			changes{with(lots(16900, 60)), set(keyReuse, "0")},
			[]string{"warning client-closes-first [warning tw-reuse]"},
		},
		{
			"the same, taken over after a second",
			changes{with(lots(28222, 60)), set(keyReuse, "1"), recycled(1)},
			[]string{"info client-closes-first"},
		},
		{
			"the same, but none was ever taken over: the peer may use no time stamps",
			changes{with(lots(28222, 60)), set(keyReuse, "1"), recycled(0)},
			[]string{"info client-closes-first", "? port-exhaustion"},
		},
		{
			"the same on loopback, where 2 is enough",
			changes{with(connector("127.0.0.1", "127.0.0.1:80", 10, 28222, steady(28222, 60))), recycled(1)},
			[]string{"info client-closes-first"},
		},
		{
			"a burst of five seconds is no exhaustion",
			changes{with(lots(4000, 5)), set(keyReuse, "0")},
			[]string{"warning client-closes-first"},
		},
		{
			"live connections hold the ports",
			changes{with(connector(client, service, 28232, 0, nil))},
			[]string{"critical port-exhaustion"},
		},
		{
			"one port of a range that listeners and reservations share",
			changes{
				with(connector(client, service, 8, 0, nil)), set(keyRange, "40000 40009"), set(keyReserved, "40001,40002"),
				func(s *snapshot.Snapshot) {
					s.Namespaces[0].Listeners = []snapshot.Listener{{Local: endpoint("0.0.0.0:40001")}}
				},
			},
			[]string{"critical port-exhaustion"},
		},
		{
			"the range could not be read",
			changes{with(lots(28222, 60)), unset(keyRange)},
			[]string{"info client-closes-first", "? port-exhaustion", "? bind-before-connect", "? client-closes-first", "? tw-reuse"},
		},
		{
			"the sockets could not be read",
			changes{func(s *snapshot.Snapshot) {
				s.Namespaces[0].SocketsRead, s.Namespaces[0].SocketsComplete = false, false
			}},
			[]string{
				"? port-exhaustion", "? close-wait-leak", "? orphan-pileup", "? fin-wait2-pileup", "? bind-before-connect",
				"? client-closes-first", "? connection-churn", "? address-in-use", "? tw-reuse",
			},
		},

		{
			"every port of the range is reserved, and nothing is connected",
			changes{set(keyReserved, "32768-60999")},
			[]string{"critical port-exhaustion"},
		},

		// connection-churn
		{
			"a service that closes first, without harm",
			changes{with(acceptor("10.0.0.2:80", 100, 1200, steady(1200, 60)))},
			[]string{"info connection-churn"},
		},
		{
			"just below twenty a second",
			changes{with(acceptor("10.0.0.2:80", 100, 1199, steady(1199, 60)))},
			nil,
		},
		{
			"TIME_WAIT is the smaller part",
			changes{with(acceptor("10.0.0.2:80", 1201, 1200, steady(1200, 60)))},
			nil,
		},
		{
			"three tenths of tcp_max_tw_buckets",
			changes{with(acceptor("10.0.0.2:80", 0, 1200, steady(1200, 60))), set(keyBuckets, "4000")},
			[]string{"warning connection-churn"},
		},
		{
			"the limit could not be read",
			changes{with(acceptor("10.0.0.2:80", 0, 1200, steady(1200, 60))), unset(keyBuckets)},
			[]string{"info connection-churn", "? time-wait-overflow", "? connection-churn"},
		},

		// client-closes-first
		{"a client that closes first, without harm", changes{with(lots(1200, 60))}, []string{"info client-closes-first"}},
		{"a client just below twenty a second", changes{with(lots(1199, 60))}, nil},
		{
			"three tenths of the ports",
			changes{with(lots(8480, 60)), set(keyReuse, "0")},
			[]string{"warning client-closes-first [warning tw-reuse]"},
		},
		{
			"just below three tenths of the ports",
			changes{with(lots(8400, 60)), set(keyReuse, "0")},
			[]string{"info client-closes-first"},
		},
		{
			// 1,900 closes/s would come to 114,000 sockets, but for the ports.
			"there are never more in TIME_WAIT than ports",
			changes{with(lots(28222, 15)), set(keyReuse, "1"), recycled(1)},
			[]string{"info client-closes-first"},
		},
		{
			"a role that could not be told",
			changes{with(func() snapshot.Group {
				g := lots(28222, 60)
				g.Role, g.Rule, g.Owners = tcp.RoleUnknown, tcp.ByNoRule, nil
				return g
			}())},
			[]string{"? port-exhaustion", "? client-closes-first", "? connection-churn"},
		},
		{
			"groups that were folded, and may be large",
			changes{
				with(acceptor("10.0.0.2:80", 5000, 0, nil)),
				func(s *snapshot.Snapshot) {
					o := &snapshot.Other{Groups: 9}
					o.States[tcp.TimeWait] = 1200
					s.Namespaces[0].Other = o
				},
			},
			[]string{"? client-closes-first", "? connection-churn"},
		},
		{
			"groups that were folded, none larger than the smallest that was kept",
			changes{
				with(acceptor("10.0.0.2:80", 10, 0, nil)),
				func(s *snapshot.Snapshot) {
					o := &snapshot.Other{Groups: 9000}
					o.States[tcp.TimeWait] = 90000
					s.Namespaces[0].Other = o
				},
			},
			nil,
		},
		{
			"sockets that connect() took over hide the closes of a client",
			changes{func(s *snapshot.Snapshot) {
				after := counters(0)
				after["TcpExtTW"], after["TcpExtTWRecycled"] = 700, 590
				s.Namespaces[0].Counters = snapshot.NewCounters(counters(0), after)
			}},
			[]string{"? client-closes-first"},
		},

		{
			"sockets that were dropped hide the closes of both ends",
			changes{overflowed(50)},
			[]string{"critical time-wait-overflow", "? client-closes-first", "? connection-churn"},
		},

		// tw-reuse
		{
			"time stamps are off",
			changes{with(connector(client, service, 10000, 8480, steady(8480, 60))), set(keyTimestamps, "0"), set(keyReuse, "1")},
			[]string{"warning port-exhaustion [warning tw-reuse]"},
		},
		{
			"a delay of half a minute",
			changes{with(lots(17500, 60)), set(keyReuse, "1"), set(keyReuseDelay, "30000"), recycled(1)},
			[]string{"warning client-closes-first [warning tw-reuse]"},
		},
		{
			"a default delay is no obstacle",
			changes{with(lots(28222, 1)), set(keyReuse, "1"), set(keyReuseDelay, "1000")},
			[]string{"critical port-exhaustion <- client-closes-first [warning client-closes-first]"},
		},

		// time-wait-overflow
		{
			"three quarters of the limit",
			changes{with(acceptor("10.0.0.2:80", 9000, 7500, steady(7500, 60))), set(keyBuckets, "10000")},
			[]string{"warning time-wait-overflow"},
		},
		{
			"just below three quarters",
			changes{with(acceptor("10.0.0.2:80", 9000, 7499, steady(7499, 60))), set(keyBuckets, "10000")},
			nil,
		},
		{
			"nine tenths of the limit, by one service",
			changes{with(acceptor("10.0.0.2:80", 0, 9000, steady(9000, 60))), set(keyBuckets, "10000")},
			[]string{"critical time-wait-overflow <- connection-churn [warning connection-churn]"},
		},
		{
			"the root cause leads what is folded, whatever its severity",
			changes{
				with(acceptor("10.0.0.2:80", 0, 1200, steady(1200, 60)), connector(client, service, 20000, 0, nil)),
				overflowed(17),
			},
			[]string{"critical time-wait-overflow <- connection-churn [info connection-churn] [warning port-exhaustion]"},
		},
		{"the limit is being hit", changes{overflowed(17)}, []string{"critical time-wait-overflow"}},
		{"it was hit before, and a single reading does not tell", changes{noWindow(17)}, []string{"? time-wait-overflow"}},
		{"it was never hit, which a single reading tells", changes{noWindow(0)}, nil},
		{
			"a limit for the whole host",
			changes{
				with(acceptor("10.0.0.2:80", 9000, 4000, steady(4000, 60))), unset(keyBuckets),
				beside(2, "b", acceptor("10.0.0.3:80", 9000, 4000, steady(4000, 60))),
				func(s *snapshot.Snapshot) {
					delete(s.Namespaces[1].Settings, keyBuckets)
					s.Host.Settings[keyBuckets] = "10000"
				},
			},
			[]string{"warning time-wait-overflow"},
		},

		// fin-timeout
		{"below the default", changes{set(keyFinTimeout, "30")}, []string{"info fin-timeout"}},
		{"where it is shorter than it says", changes{set(keyFinTimeout, "61")}, []string{"warning fin-timeout"}},
		{"the last such", changes{set(keyFinTimeout, "119")}, []string{"warning fin-timeout"}},
		{"where it is what it says", changes{set(keyFinTimeout, "120")}, []string{"info fin-timeout"}},
		{"where it is longer than it says", changes{set(keyFinTimeout, "180")}, []string{"info fin-timeout"}},
		{"it could not be read", changes{unset(keyFinTimeout)}, []string{"? fin-timeout"}},
		{
			"a file would set it, and one namespace has it",
			changes{set(keyFinTimeout, "30"), func(s *snapshot.Snapshot) {
				s.Host.Boot = []snapshot.BootSetting{{Key: keyFinTimeout, Value: "30", File: "/etc/sysctl.conf", Line: 3, Loaders: []string{"procps"}}}
			}},
			[]string{"info fin-timeout [info fin-timeout]"},
		},

		// close-wait-leak
		{"a hundred sockets", changes{with(leaking(100, 0, curl))}, []string{"warning close-wait-leak"}},
		{"ninety-nine", changes{with(leaking(99, 0, curl))}, nil},
		{"never accepted", changes{with(leaking(0, 5000))}, nil},
		{"nobody may be named", changes{with(leaking(100, 0))}, []string{"warning close-wait-leak"}},
		{"workers of one program", changes{with(leaking(50, 0, curl), leaking(50, 0, worker))}, []string{"warning close-wait-leak"}},
		{"two programs", changes{with(leaking(60, 0, curl), leaking(60, 0, python))}, nil},
		{"few descriptors are left", changes{with(leaking(100, 0, tight))}, []string{"critical close-wait-leak"}},
		{
			"no second look",
			changes{with(func() snapshot.Group { g := leaking(100, 0, curl); g.CloseWait = nil; return g }())},
			[]string{"? close-wait-leak"},
		},
		{
			"a leak that takes the ports",
			changes{with(leaking(100, 0, curl)), set(keyRange, "40000 40099")},
			[]string{"critical port-exhaustion <- close-wait-leak [warning close-wait-leak]"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				tt.want = []string{}
			}
			if diff := cmp.Diff(tt.want, told(Judge(world(tt.changes...), DefaultThresholds()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func owner(process string, pid int, used, most int64) snapshot.Owner {
	return snapshot.Owner{Process: process, PID: pid, How: snapshot.Seen, Descriptors: &used, DescriptorLimit: &most}
}

var (
	curl   = owner("curl", 42, 200, 1024)
	worker = owner("curl", 43, 200, 1024)
	python = owner("python3", 44, 200, 1024)
	tight  = owner("curl", 45, 1000, 1024)
)

// leaking is a client's group with old sockets in CLOSE_WAIT, of the owner if one
// may be named.
func leaking(old, unaccepted int, owners ...snapshot.Owner) snapshot.Group {
	g := connector(client, service, 0, 0, nil)
	g.States[tcp.CloseWait] = old + unaccepted
	g.InRange = g.States
	g.CloseWait = &snapshot.CloseWait{Old: old, Unaccepted: unaccepted}
	for _, o := range owners {
		o.Sockets = old
		g.CloseWait.Owners = append(g.CloseWait.Owners, o)
	}
	return g
}

func TestEveryProblemIsJudgedOrHeldOrUnknown(t *testing.T) {
	d := Judge(world(), DefaultThresholds())
	if len(d.Findings)+len(d.Unknown) != 0 {
		t.Fatalf("an idle host: %v", told(d))
	}
	for i, rule := range Rules() {
		if d.Absent[i].Problem != rule.Slug || d.Absent[i].Because == "" {
			t.Errorf("%s: held %+v", rule.Slug, d.Absent[i])
		}
		if rule.Title == "" || rule.Needs == "" {
			t.Errorf("%s has no title, or does not say what it needs", rule.Slug)
		}
	}
}

func TestNothingReadIsNothingHeld(t *testing.T) {
	d := Judge(&snapshot.Snapshot{}, DefaultThresholds())
	if len(d.Findings)+len(d.Absent)+len(d.Unknown) != 0 {
		t.Errorf("a snapshot without namespaces: %+v", d)
	}
}

func TestOrder(t *testing.T) {
	s := world(
		with(
			connector(client, "10.0.0.2:80", 28232, 0, nil),                    // fails now
			connector(client, "10.0.0.3:80", 0, 14400, steady(14400, 20)),      // in a while
			connector(client, "10.0.0.4:80", 0, 24000, steady(24000, 20)),      // sooner
			acceptor("10.0.0.1:8080", 0, 1500, steady(1500, 60)),               // harmless
			connector("10.0.0.9", "10.0.0.5:80", 17500, 0, nil),                // near
			connector("10.0.0.9", "10.0.0.6:80", 8000, 8480, steady(8480, 60)), // a setting stands in the way
			connector("10.0.0.9", "10.0.0.7:80", 0, 1200, steady(1200, 60)),    // harmless
		),
		set(keyFinTimeout, "61"), set(keyBuckets, "10000000"),
	)
	var got []string
	for _, f := range Judge(s, DefaultThresholds()).Findings {
		got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.Problem, f.Subject.Remote))
	}
	want := []string{
		"critical port-exhaustion 10.0.0.2:80",
		"critical port-exhaustion 10.0.0.4:80",
		"critical port-exhaustion 10.0.0.3:80",
		"warning port-exhaustion 10.0.0.5:80",
		"warning client-closes-first 10.0.0.6:80",
		"warning fin-timeout *",
		"info client-closes-first 10.0.0.7:80",
		"info connection-churn *",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// That connects fail is claimed where no port is left, or where those that are will
// go in a moment.
func TestWhetherConnectsFail(t *testing.T) {
	for _, tt := range []struct {
		name    string
		g       snapshot.Group
		failing bool
	}{
		{"none is left", connector(client, service, 28232, 0, nil), true},
		{"few are left to a steady pool", connector(client, service, 28000, 0, nil), false},
		{"few are left to churn", connector(client, service, 0, 28000, steady(28000, 60)), true},
	} {
		f := Judge(world(with(tt.g)), DefaultThresholds()).Findings[0]
		if f.FailingNow != tt.failing || strings.Contains(f.Summary, "EADDRNOTAVAIL") != tt.failing || f.Severity != Critical {
			t.Errorf("%s: %s, failing %t: %s", tt.name, f.Severity, f.FailingNow, f.Summary)
		}
	}
}

// An onset is told by its own rate: the time left is not that of the mean.
func TestOnsetIsToldByItsRate(t *testing.T) {
	f := Judge(world(with(connector(client, service, 0, 10000, steady(10000, 10)))), DefaultThresholds()).Findings[0]
	// 18,232 ports are free, and 1,000 go each second.
	if f.SecondsLeft == nil || math.Round(*f.SecondsLeft) != 18 || !strings.Contains(f.Summary, "in 18 s at 1,000 closes/s") {
		t.Errorf("seconds left %v: %s", f.SecondsLeft, f.Summary)
	}
	if !strings.Contains(strings.Join(f.Unsure, "\n"), "it began 10 s ago") {
		t.Errorf("unsure: %q", f.Unsure)
	}
}

// Each state that can hold the ports has its own cure.
func TestWhatHoldsThePorts(t *testing.T) {
	for state, want := range map[tcp.State]RemedyID{
		tcp.Established: KeepConnections, tcp.CloseWait: CloseSockets, tcp.FinWait2TimeWait: KeepConnections,
	} {
		g := connector(client, service, 0, 0, nil)
		g.States[state] = 28232
		g.InRange = g.States
		f := Judge(world(with(g)), DefaultThresholds()).Findings[0]
		if f.Problem != PortExhaustion || len(f.Remedies) == 0 || f.Remedies[0] != want {
			t.Errorf("%s: %s, remedies %v", state, f.Problem, f.Remedies)
		}
	}
}

// A setting that a finding blames is not among the suspects that it clears.
func TestTheBlamedIsNotCleared(t *testing.T) {
	for name, tt := range map[string]struct {
		g       snapshot.Group
		buckets string
		cleared bool
	}{
		"churn far from the limit":     {acceptor("10.0.0.1:80", 0, 1200, steady(1200, 60)), "131072", true},
		"churn near the limit":         {acceptor("10.0.0.1:80", 0, 1200, steady(1200, 60)), "2400", false},
		"client near the limit":        {connector(client, service, 0, 1200, steady(1200, 60)), "2400", false},
		"client near the end of ports": {connector(client, service, 0, 9000, steady(9000, 60)), "131072", true},
	} {
		f := Judge(world(with(tt.g), set("net.ipv4.tcp_max_tw_buckets", tt.buckets)), DefaultThresholds()).Findings[0]
		cleared := slices.ContainsFunc(f.RuledOut, func(r RuledOut) bool { return r.ID == "max-tw-buckets" })
		if cleared != tt.cleared || strings.Contains(f.Summary, "of tcp_max_tw_buckets") == tt.cleared {
			t.Errorf("%s: cleared %t: %s", name, cleared, f.Summary)
		}
	}
}

func TestBothEndsFold(t *testing.T) {
	near := connector(client, service, 0, 1200, steady(1200, 60))
	near.Peer = &snapshot.Peer{Cookie: 2, Inode: 2, Netns: "pod b"}
	further := near
	s := world(
		with(near),
		beside(2, "b", acceptor(service, 0, 1300, steady(1300, 60))),
		beside(3, "c", further),
	)
	// The service folds with one client; the other client has its own namespace to
	// be acted on.
	want := []string{"info client-closes-first [info connection-churn]", "info client-closes-first"}
	if diff := cmp.Diff(want, told(Judge(s, DefaultThresholds()))); diff != "" {
		t.Error(diff)
	}
}

func TestSourcesOfOneDestinationFold(t *testing.T) {
	s := world(with(
		connector("10.0.0.1", service, 0, 1200, steady(1200, 60)),
		connector("10.0.0.9", service, 0, 1300, steady(1300, 60)),
	))
	want := []string{"info client-closes-first [info client-closes-first]"}
	if diff := cmp.Diff(want, told(Judge(s, DefaultThresholds()))); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownIsSaidOnceForAllNamespaces(t *testing.T) {
	blind := func(s *snapshot.Snapshot) {
		for i := range s.Namespaces {
			delete(s.Namespaces[i].Settings, keyFinTimeout)
		}
	}
	got := Judge(world(beside(2, "b"), beside(3, "c"), blind), DefaultThresholds()).Unknown
	want := Unknown{Lack: LackSettings, Problem: FinTimeout, Netns: "3 namespaces", Needs: "readable sysctl: net.ipv4.tcp_fin_timeout"}
	if len(got) != 1 || len(got[0].Places) != 3 {
		t.Fatalf("%+v", got)
	}
	got[0].Places = nil
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
}

func TestLowerBoundIsPassedOn(t *testing.T) {
	g := acceptor(service, 0, 1200, steady(1200, 60))
	g.Closes.LowerBound = true
	f := Judge(world(with(g)), DefaultThresholds()).Findings[0]
	if !strings.Contains(f.Summary, "at least 20 connections/s") {
		t.Errorf("summary %q does not say at least", f.Summary)
	}
	// What is left of the latest seconds tells more than the minute.
	g.Closes = steady(1200, 6)
	g.Closes.LowerBound = true
	f = Judge(world(with(g)), DefaultThresholds()).Findings[0]
	if !strings.Contains(f.Summary, "at least 200 connections/s") {
		t.Errorf("summary %q does not go by the latest seconds", f.Summary)
	}
}

func TestOwnersAreNamedOrDoubted(t *testing.T) {
	g := connector(client, service, 0, 1200, steady(1200, 60))
	inferred := Judge(world(with(g)), DefaultThresholds()).Findings[0]
	g.Owners = nil
	nobody := Judge(world(with(g)), DefaultThresholds()).Findings[0]
	for name, tt := range map[string]struct {
		f      Finding
		owners int
		doubt  string
	}{
		"inferred": {inferred, 1, "inferred"},
		"nobody":   {nobody, 0, "forgets the owner"},
	} {
		if len(tt.f.Owners) != tt.owners || tt.f.Confidence != Medium || !strings.Contains(strings.Join(tt.f.Unsure, "\n"), tt.doubt) {
			t.Errorf("%s: owners %v, confidence %s, unsure %q", name, tt.f.Owners, tt.f.Confidence, tt.f.Unsure)
		}
	}
}

// allAtOnce is a host with every problem.
func allAtOnce() *snapshot.Snapshot {
	return world(
		with(
			connector(client, service, 0, 28232, steady(28232, 60)),
			acceptor("[fd00::1]:80", 0, 1500, steady(1500, 60)),
			leaking(100, 3, curl),
			halfClosed(60, 40), dying(100, 100), odd(400, 400),
		),
		tracking(95, 100, map[string]uint64{"insert_failed": 5}, sampled(30, 60, 90, true)),
		wanting(true, 30, 1), listening(17, 16), set(keySomaxconn, "16"), set(keyRecycle, "1"),
		rose(map[string]uint64{listenOverflows: 9, estabResets: 200, pawsTimeWait: 5, "TcpExtPruneCalled": 50, "TcpExtTCPAbortOnClose": 150}),
		set(keyFinTimeout, "61"), set(keyBuckets, "30000"), set(keyReuse, "0"),
	)
}

// What a summary says of the connections and of the namespace is left out where these
// stand above it.
func TestBrief(t *testing.T) {
	for want, change := range map[string][]func(*snapshot.Snapshot){
		"10.0.0.1 → 10.0.0.2:80: no source port is left of 28,232; connect() fails with EADDRNOTAVAIL": {
			with(connector(client, service, 28232, 0, nil)),
		},
		"tcp_fin_timeout is 30 s: it does not shorten TIME_WAIT, in host": {set(keyFinTimeout, "30")},
		"9,000 of 10,000 time-wait sockets (90 % of tcp_max_tw_buckets) in host": {
			with(acceptor("10.0.0.2:80", 20000, 9000, steady(9000, 60))), set(keyBuckets, "10000"),
		},
	} {
		f := Judge(world(change...), DefaultThresholds()).Findings[0]
		short := strings.TrimPrefix(want, "10.0.0.1 → 10.0.0.2:80: ")
		short = strings.TrimSuffix(strings.TrimSuffix(short, " in host"), ",")
		if f.Summary != want || f.Brief != short {
			t.Errorf("%q, in brief %q, want %q and %q", f.Summary, f.Brief, want, short)
		}
	}
}

func TestFindingsBringEvidenceThatCanBeChecked(t *testing.T) {
	s := allAtOnce()
	seen := map[Slug]bool{}
	var walk func(f Finding)
	walk = func(f Finding) {
		seen[f.Problem] = true
		if f.Summary == "" || f.Why == "" || len(f.Evidence) == 0 || len(f.Remedies) == 0 || len(f.WillNotHelp) == 0 {
			t.Errorf("%s lacks something: %+v", f.Problem, f)
		}
		for _, e := range f.Evidence {
			if e.Name == "" || e.Source == "" || e.Check == "" {
				t.Errorf("%s: evidence %+v lacks something", f.Problem, e)
			}
		}
		for _, r := range f.Related {
			walk(r)
		}
	}
	for _, f := range Judge(s, DefaultThresholds()).Findings {
		walk(f)
	}
	for _, rule := range Rules() {
		if !seen[rule.Slug] {
			t.Errorf("%s was not found", rule.Slug)
		}
	}
}

func TestJudgeReadsTheThresholds(t *testing.T) {
	th := DefaultThresholds()
	for name, value := range map[string]float64{
		"port-exhaustion.warning-percent": 10, "client-closes-first.closes-per-second": 1e9, "tw-reuse.warning-percent": 100,
	} {
		if err := th.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	s := world(with(connector(client, service, 0, 3000, steady(3000, 60))))
	if diff := cmp.Diff([]string{"warning port-exhaustion"}, told(Judge(s, th))); diff != "" {
		t.Error(diff)
	}
}
