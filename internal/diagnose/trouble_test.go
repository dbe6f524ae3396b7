package diagnose

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// listening is a namespace with one listener whose queue holds so many of a backlog.
func listening(queued, backlog uint32) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		s.Namespaces[0].Listeners = append(s.Namespaces[0].Listeners, snapshot.Listener{
			Local: endpoint("0.0.0.0:8080"), AcceptQueue: queued, Backlog: backlog,
			Owners: []snapshot.Owner{{Process: "gunicorn", PID: 9, How: snapshot.Seen}},
		})
	}
}

// halfClosed is a client's group whose peer does not close.
func halfClosed(orphaned, owned int) snapshot.Group {
	g := connector(client, "10.0.0.3:80", 0, 0, nil)
	g.States[tcp.FinWait2TimeWait], g.States[tcp.FinWait2] = orphaned, owned
	g.InRange = g.States
	return g
}

// young is a group of which so many in FIN_WAIT2 are younger than 3 s.
func young(g snapshot.Group, n int) snapshot.Group {
	g.YoungFinWait2 = n
	return g
}

// dying is a client's group whose FIN is not answered, by so many not for long.
func dying(n, silent int) snapshot.Group {
	g := connector(client, "10.0.0.4:80", 0, 0, nil)
	g.States[tcp.FinWait1], g.NoFile[tcp.FinWait1], g.Unanswered[tcp.FinWait1] = n, n, silent
	g.InRange = g.States
	return g
}

// odd is a client's group of live connections, so many of them with a port of the
// other parity.
func odd(n, other int) snapshot.Group {
	g := connector(client, "10.0.0.5:80", n, 0, nil)
	g.OtherParity = other
	return g
}

// tracking is a namespace whose table holds so many entries.
func tracking(count, most int64, rises map[string]uint64, sample *snapshot.ConntrackSample) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		before := map[string]uint64{"drop": 1, "early_drop": 1, "insert_failed": 1}
		after := maps.Clone(before)
		for name, n := range rises {
			after[name] += n
		}
		s.Namespaces[0].Conntrack = &snapshot.Conntrack{
			Count: count, Max: most, TimeoutSeconds: map[string]int64{"time_wait": 120},
			Counters: snapshot.NewCounters(before, after), Sample: sample,
		}
	}
}

func sampled(timeWait, established, translated int, complete bool) *snapshot.ConntrackSample {
	s := &snapshot.ConntrackSample{
		Entries: timeWait + established, Complete: complete, Translated: translated,
		States: map[string]int{"time_wait": timeWait, "established": established},
	}
	if translated > 0 {
		s.Translations = []snapshot.Translation{{
			Source: endpoint("192.0.2.1"), Destination: endpoint("198.51.100.7:443"), Entries: translated, TimeWait: timeWait,
		}}
	}
	return s
}

// wanting is a namespace in which nobody listens on a port, with what is on it.
func wanting(asked bool, remains, outgoing int) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		w := snapshot.Wanted{Service: endpoint("10.0.0.1:40000"), Asked: asked}
		w.Remains[tcp.TimeWait] = remains
		for range outgoing {
			w.Outgoing = append(w.Outgoing, snapshot.Connection{
				Local: endpoint("10.0.0.1:40000"), Remote: endpoint("10.0.0.9:443"), State: "ESTABLISHED",
				Owners: []snapshot.Owner{{Process: "curl", PID: 42, How: snapshot.Seen}},
			})
		}
		s.Namespaces[0].Wanted = append(s.Namespaces[0].Wanted, w)
	}
}

func host(change func(*snapshot.Host)) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) { change(&s.Host) }
}

// router is one more namespace, which tracks connections for so many idle seconds, and
// whose invalid segments were read twice.
func router(keeps int64, before, after uint64) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		s.Namespaces = append(s.Namespaces, snapshot.Namespace{
			Cookie: 9, Inode: 9, Label: snapshot.Label{Kind: snapshot.LabelNamed, Name: "router"},
			Settings: settings(), SocketsRead: true, SocketsComplete: true, BoundPorts: tcp.PortSet{},
			Conntrack: &snapshot.Conntrack{
				Max: 100, TimeoutSeconds: map[string]int64{"established": keeps},
				Counters: snapshot.NewCounters(map[string]uint64{"invalid": before}, map[string]uint64{"invalid": after}),
			},
		})
	}
}

// A firewall is named where it may have forgotten the connections, and acquitted where
// it keeps them for longer than keep-alive waits and met nothing unknown.
func TestWhoForgot(t *testing.T) {
	silent := connector(client, service, 200, 0, nil)
	silent.Unanswered[tcp.Established] = 20
	own := func(keeps int64) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			s.Namespaces[0].Conntrack = &snapshot.Conntrack{Max: 100, TimeoutSeconds: map[string]int64{"established": keeps}}
		}
	}
	for _, tt := range []struct {
		name    string
		changes []func(*snapshot.Snapshot)
		keeps   float64 // -1: nobody is blamed
		rise    float64
		longer  bool // the finding's own namespace may remember for longer
	}{
		{"nobody tracks", nil, -1, -1, false},
		{"a router that keeps them, and knows all", []func(*snapshot.Snapshot){router(432000, 40, 40)}, -1, -1, false},
		{"a router that keeps them, and meets unknown ones", []func(*snapshot.Snapshot){router(432000, 40, 43)}, 432000, 3, false},
		{"a router that forgets", []func(*snapshot.Snapshot){router(600, 40, 43)}, 600, 3, false},
		{"a router that forgets, and has met nothing", []func(*snapshot.Snapshot){router(600, 0, 0)}, -1, -1, false},
		{"own tracking that forgets", []func(*snapshot.Snapshot){own(600)}, 600, -1, true},
		{"own tracking, and a router that forgets", []func(*snapshot.Snapshot){own(432000), router(600, 40, 43)}, 600, 3, false},
		{"own tracking that forgets, and a router that knows all", []func(*snapshot.Snapshot){own(600), router(432000, 0, 0)}, 600, -1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes := append([]func(*snapshot.Snapshot){with(silent), set(keyKeepalive, "7200")}, tt.changes...)
			d := Judge(world(changes...), DefaultThresholds())
			if len(d.Findings) != 1 || d.Findings[0].Problem != VanishedConnections {
				t.Fatalf("findings %+v", d.Findings)
			}
			f := d.Findings[0]
			value := func(id EvidenceID) float64 {
				if e, told := f.Measured(id); told {
					return e.Value
				}
				return -1
			}
			if keeps, rise := value("conntrack-keeps"), value("conntrack-invalid"); keeps != tt.keeps || rise != tt.rise {
				t.Errorf("keeps %v s, %v invalid; want %v and %v", keeps, rise, tt.keeps, tt.rise)
			}
			if longer := slices.Contains(f.Remedies, LongerConntrack); longer != tt.longer {
				t.Errorf("a longer time-out here is a remedy: %v, want %v", longer, tt.longer)
			}
		})
	}
}

func TestJudgeTroubles(t *testing.T) {
	type changes = []func(*snapshot.Snapshot)
	type rises = map[string]uint64
	manyClients := func(n int) snapshot.Group {
		g := acceptor("10.0.0.2:80", 0, 0, nil)
		g.States[tcp.FinWait2TimeWait] = 3 * n
		for _, a := range []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"} {
			g.Clients = append(g.Clients, snapshot.Client{Addr: addr(a), Sockets: n, FinWait2: n})
		}
		return g
	}
	silent := func(n int) snapshot.Group {
		g := connector(client, service, 200, 0, nil)
		g.Unanswered[tcp.Established] = n
		return g
	}
	for _, tt := range []struct {
		name    string
		changes changes
		want    []string
		says    string // in the first finding's summary or mechanism
	}{
		// accept-queue-overflow
		{
			"a full queue that refuses", changes{listening(17, 16), rose(rises{listenOverflows: 4})},
			[]string{"critical accept-queue-overflow"}, "4 attempts refused",
		},
		{
			"a full queue, and nobody comes", changes{listening(17, 16)},
			[]string{"warning accept-queue-overflow"}, "17 connections of a backlog of 16",
		},
		{"a queue with one place left", changes{listening(16, 16)}, nil, ""},
		{
			"a burst that has passed", changes{listening(0, 16), rose(rises{listenOverflows: 4})},
			[]string{"critical accept-queue-overflow"}, "no queue was full",
		},
		{
			"SYNs dropped for another reason", changes{listening(0, 16), rose(rises{listenDrops: 4})},
			[]string{"critical accept-queue-overflow"}, "none of them by a full accept queue",
		},
		{
			"as long as somaxconn allows", changes{listening(17, 16), set(keySomaxconn, "16")},
			[]string{"warning accept-queue-overflow"}, "next listen()",
		},
		{"one reading of many overflows", changes{listening(0, 16), noWindow(0)}, []string{"? accept-queue-overflow"}, ""},

		// address-in-use
		{"an outgoing connection on a service's port", changes{wanting(false, 0, 1)}, []string{"warning address-in-use"}, "of curl sits on it"},
		{"in the range, and not reserved", changes{wanting(false, 0, 1)}, []string{"warning address-in-use"}, "lies in ip_local_port_range"},
		{"a service that has ended", changes{wanting(false, 30, 0)}, []string{"info address-in-use"}, "30 sockets of its last connections"},
		{"one that the user wants", changes{wanting(true, 30, 0)}, []string{"warning address-in-use"}, "SO_REUSEADDR"},
		{"nothing is on the port", changes{wanting(true, 0, 0)}, nil, ""},
		{
			"a socket that is connected to itself",
			changes{func(s *snapshot.Snapshot) {
				s.Namespaces[0].SelfConnected = []tcp.Endpoint{endpoint("127.0.0.1:40000")}
			}},
			[]string{"warning address-in-use"}, "1 socket connected to itself",
		},

		// bind-before-connect
		{"ports that bind() chose", changes{with(odd(50, 50))}, []string{"info bind-before-connect"}, "50 of 28,232 source ports"},
		{"49 of them", changes{with(odd(49, 49))}, nil, ""},
		{"most were chosen by connect()", changes{with(odd(200, 79))}, nil, ""},
		{"a third of the range", changes{with(odd(8500, 8500))}, []string{"warning bind-before-connect"}, "EADDRINUSE"},
		{"half full, by connect() as it seems", changes{with(odd(16000, 1884))}, nil, ""},
		{"nobody can tell any more", changes{set(keyRange, "40000 40999"), with(odd(590, 290))}, []string{"? bind-before-connect"}, ""},

		// conntrack-full
		{"three quarters of the table", changes{tracking(75, 100, nil, nil)}, []string{"warning conntrack-full"}, "75 of 100 entries"},
		{"just below", changes{tracking(749, 1000, nil, nil)}, nil, ""},
		{"nine tenths", changes{tracking(90, 100, nil, sampled(8192, 8192, 0, false))}, []string{"critical conntrack-full"}, "50 % (49 to 51 %)"},
		{
			"just below nine tenths", changes{tracking(899, 1000, nil, sampled(8192, 8192, 0, false))},
			[]string{"warning conntrack-full"}, "899 of 1,000 entries",
		},
		{"it drops", changes{tracking(80, 100, rises{"drop": 3}, nil)}, []string{"critical conntrack-full"}, "3 packets dropped"},
		{"drops of another reason", changes{tracking(10, 100, rises{"drop": 3}, nil)}, nil, ""},

		// nat-port-exhaustion
		{
			"a translation without a port", changes{tracking(20, 100, rises{"insert_failed": 3}, sampled(10, 10, 15, true))},
			[]string{"critical nat-port-exhaustion"}, "15 ports are taken for 198.51.100.7:443",
		},
		{
			"a sample of it", changes{tracking(4000, 10000, rises{"insert_failed": 3}, sampled(10, 10, 15, false))},
			[]string{"critical nat-port-exhaustion"}, "about 3,000 ports",
		},
		{"clashes without translation", changes{tracking(20, 100, rises{"insert_failed": 3}, sampled(10, 10, 0, true))}, nil, ""},
		{"nobody may look into the table", changes{tracking(20, 100, rises{"insert_failed": 3}, nil)}, []string{"? nat-port-exhaustion"}, ""},

		// fin-wait2-pileup
		{"a hundred to one remote", changes{with(halfClosed(100, 0))}, []string{"warning fin-wait2-pileup"}, "No program here has them"},
		{"99 to one remote", changes{with(halfClosed(99, 0))}, nil, ""},
		{"as many, too young to tell", changes{with(young(halfClosed(150, 0), 51))}, nil, ""},
		{"enough are old", changes{with(young(halfClosed(150, 0), 50))}, []string{"warning fin-wait2-pileup"}, "150 connections"},
		{"a program keeps them", changes{with(halfClosed(0, 100))}, []string{"warning fin-wait2-pileup"}, "no time-out ends that"},
		{"some of either", changes{with(halfClosed(60, 40))}, []string{"warning fin-wait2-pileup"}, "60 have lost their program"},
		{"one client of a service", changes{with(manyClients(100))}, []string{"warning fin-wait2-pileup"}, "10.1.0.1 does not close"},
		{"many clients, a few each", changes{with(manyClients(99))}, nil, ""},

		// orphan-pileup
		{"a dead peer", changes{with(dying(100, 100))}, []string{"warning orphan-pileup"}, "is dead"},
		{"a stalled peer", changes{with(dying(100, 0))}, []string{"warning orphan-pileup"}, "stalled"},
		{"99 orphans", changes{with(dying(99, 99))}, nil, ""},
		{
			"the limit of orphans is near", changes{with(dying(100, 100)), host(func(h *snapshot.Host) { *h.Orphans = 30000 })},
			[]string{"critical orphan-pileup"}, "30,000 of 65,536 orphans",
		},
		{
			"orphans are refused", changes{with(dying(100, 100)), rose(rises{abortOnMemory: 2})},
			[]string{"critical orphan-pileup"}, "for want of room",
		},

		// vanished-connections
		{
			"resets from here", changes{rose(rises{estabResets: 10, "TcpActiveOpens": 100, "TcpExtTCPAbortOnClose": 10})},
			[]string{"warning vanished-connections"}, "data unread",
		},
		{
			"resets from a peer", changes{rose(rises{estabResets: 10, "TcpActiveOpens": 100})},
			[]string{"warning vanished-connections"}, "peers reset 10",
		},
		{
			"five a second, of a hundred opens", changes{rose(rises{estabResets: 5, "TcpActiveOpens": 60, "TcpPassiveOpens": 40})},
			[]string{"warning vanished-connections"}, "peers reset 5",
		},
		{"five a second, of one more", changes{rose(rises{estabResets: 5, "TcpActiveOpens": 60, "TcpPassiveOpens": 41})}, nil, ""},
		{"four a second", changes{rose(rises{estabResets: 4, "TcpActiveOpens": 10})}, nil, ""},
		{"few of many", changes{rose(rises{estabResets: 10, "TcpPassiveOpens": 201})}, nil, ""},
		{"twenty silent peers", changes{with(silent(20))}, []string{"warning vanished-connections"}, "get no answer"},
		{"nineteen", changes{with(silent(19))}, nil, ""},
		{
			"a firewall that forgets before the first probe",
			changes{with(silent(20)), set(keyKeepalive, "7200"), func(s *snapshot.Snapshot) {
				s.Namespaces[0].Conntrack = &snapshot.Conntrack{Max: 100, TimeoutSeconds: map[string]int64{"established": 600}}
			}},
			[]string{"warning vanished-connections"}, "forgets an idle connection after 600 s",
		},
		{
			"one in another namespace, that meets what it does not know",
			changes{with(silent(20)), set(keyKeepalive, "7200"), router(600, 40, 43)},
			[]string{"warning vanished-connections"}, "Connection tracking in netns router forgets an idle connection after 600 s",
		},
		{
			"one that met it before the window",
			changes{with(silent(20)), set(keyKeepalive, "7200"), router(600, 40, 40)},
			[]string{"warning vanished-connections"}, "Connection tracking in netns router forgets an idle connection after 600 s",
		},

		// syn-on-time-wait
		{
			"SYNs that are refused",
			changes{with(acceptor("10.0.0.2:80", 0, 30, steady(30, 60))), rose(rises{pawsTimeWait: 3})},
			[]string{"warning syn-on-time-wait"}, "3 segments/s",
		},
		{"refused without any TIME_WAIT", changes{rose(rises{pawsTimeWait: 3})}, nil, ""},
		{
			"and reset in vain",
			changes{with(acceptor("10.0.0.2:80", 0, 30, steady(30, 60))), rose(rises{skippedTimeWait: 3}), set(keyRFC1337, "1")},
			[]string{"warning syn-on-time-wait"}, "tcp_rfc1337=1",
		},
		{
			"an older kernel, by the counter that it has",
			changes{with(acceptor("10.0.0.2:80", 0, 30, steady(30, 60))), rose(rises{pawsEstab: 3}), func(s *snapshot.Snapshot) {
				delete(s.Namespaces[0].Counters.Total, pawsTimeWait)
			}},
			[]string{"warning syn-on-time-wait"}, "refused",
		},

		// resource-pressure
		{
			"no memory for buffers", changes{host(func(h *snapshot.Host) { *h.TCPMemoryPages = 2000 })},
			[]string{"warning resource-pressure"}, "2,000 of 4,000 pages",
		},
		{
			"none at all", changes{host(func(h *snapshot.Host) { *h.TCPMemoryPages = 4000 })},
			[]string{"critical resource-pressure"}, "4,000 of 4,000",
		},
		{"below pressure", changes{host(func(h *snapshot.Host) { *h.TCPMemoryPages = 1999 })}, nil, ""},
		{
			"packets dropped for CPU time", changes{host(func(h *snapshot.Host) { h.Softnet.Rise = rises{"dropped": 10} })},
			[]string{"warning resource-pressure"}, "10 packets/s",
		},
		{"nine of them", changes{host(func(h *snapshot.Host) { h.Softnet.Rise = rises{"dropped": 9} })}, nil, ""},
		{"buffers that overflow", changes{rose(rises{"TcpExtPruneCalled": 10})}, []string{"warning resource-pressure"}, "10 times/s"},
		{
			"a busy host without a sign of it",
			changes{host(func(h *snapshot.Host) { h.Pressure = map[string]snapshot.Pressure{"cpu": {Some: 80}} })},
			[]string{"info resource-pressure"}, "no sign",
		},
		{
			"a busy host that refuses orphans",
			changes{with(dying(100, 100)), rose(rises{abortOnMemory: 2}), host(func(h *snapshot.Host) {
				h.Pressure = map[string]snapshot.Pressure{"cpu": {Some: 80}}
			})},
			[]string{"critical orphan-pileup"}, "for want of room",
		},
		{"tcp_mem is not known", changes{host(func(h *snapshot.Host) { h.TCPMemoryPages = nil })}, []string{"? resource-pressure"}, ""},

		// tw-recycle: no kernel from 4.12 on has the key, so that it can only be written
		// down here.
		{"on, on an old kernel", changes{set(keyRecycle, "1")}, []string{"warning tw-recycle"}, "drops new connections"},
		{"off, on an old kernel", changes{set(keyRecycle, "0")}, nil, ""},
		{
			"in a file of a newer kernel",
			changes{host(func(h *snapshot.Host) {
				h.Boot = []snapshot.BootSetting{{Key: keyRecycle, Value: "1", File: "/etc/sysctl.d/99-fast.conf", Line: 3}}
			})},
			[]string{"info tw-recycle"}, "/etc/sysctl.d/99-fast.conf:3",
		},
		{
			"many small groups reach the host's limit of orphans together",
			changes{with(dying(60, 0)), host(func(h *snapshot.Host) { n := int64(60); h.Orphans = &n; h.Settings[keyMaxOrphans] = "100" })},
			[]string{"critical orphan-pileup"}, "60 of 100 orphans",
		},
		{
			"connections reset for want of room, and no large group",
			changes{with(dying(60, 0)), rose(rises{abortOnMemory: 3})}, []string{"critical orphan-pileup"}, "3 connections reset for want of room",
		},
		{
			"SYNs that it drops now", changes{set(keyRecycle, "1"), rose(rises{"TcpExtPAWSPassive": 2})},
			[]string{"critical tw-recycle"}, "2 SYNs dropped",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				tt.want = []string{}
			}
			d := Judge(world(tt.changes...), DefaultThresholds())
			if diff := cmp.Diff(tt.want, told(d)); diff != "" {
				t.Fatal(diff)
			}
			if tt.says != "" && !strings.Contains(d.Findings[0].Summary+d.Findings[0].Why, tt.says) {
				t.Errorf("%q is not said:\n%s\n%s", tt.says, d.Findings[0].Summary, d.Findings[0].Why)
			}
		})
	}
}

// The peer's program that leaks is the root of FIN_WAIT2 here.
func TestFinWait2IsCausedByTheLeakAtTheOtherEnd(t *testing.T) {
	g := halfClosed(100, 0)
	g.Peer = &snapshot.Peer{Cookie: 7, Netns: "pod shop", Owners: []snapshot.Owner{{Process: "java", PID: 5}}}
	leak := acceptor("10.0.0.3:80", 0, 0, nil)
	leak.States[tcp.CloseWait] = 100
	leak.CloseWait = &snapshot.CloseWait{Old: 100, Owners: []snapshot.Owner{{Process: "java", PID: 5, How: snapshot.Seen, Sockets: 100}}}
	d := Judge(world(with(g), beside(7, "shop", leak)), DefaultThresholds())
	want := []string{"warning close-wait-leak [warning fin-wait2-pileup]"}
	if diff := cmp.Diff(want, told(d)); diff != "" {
		t.Error(diff)
	}
}
