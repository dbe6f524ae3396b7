package diagnose

import (
	"net/netip"
	"time"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// The snapshots of these tests are written down, not read: rules are pure
// functions, and a kernel cannot be made to lack a fact on demand. That the rules
// name what a kernel really shows is tested in the laboratory.

// world is a host with one namespace, its own, in which all is well; each test
// changes what it is about.
func world(change ...func(*snapshot.Snapshot)) *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Schema:   snapshot.Schema,
		TakenAt:  time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC),
		WindowMS: 1000,
		Host: snapshot.Host{
			Name: "web1", Kernel: "6.12.0", Settings: snapshot.Settings{keyTCPMem: "1000 2000 4000", keyMaxOrphans: "65536"},
			TCPMemoryPages: new(int64(10)), Orphans: new(int64(3)),
			Softnet: snapshot.NewCounters(map[string]uint64{"dropped": 7}, map[string]uint64{"dropped": 7}),
		},
		Namespaces: []snapshot.Namespace{{
			Cookie: 1, Inode: 4026531840, Own: true, PID: 1,
			Label:           snapshot.Label{Kind: snapshot.LabelHost},
			Settings:        settings(),
			Counters:        snapshot.NewCounters(counters(0), counters(0)),
			Sockstat:        &snapshot.Sockstat{},
			SocketsRead:     true,
			SocketsComplete: true,
			BoundPorts:      tcp.PortSet{},
		}},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// settings are the defaults of kernel 6.12.
func settings() snapshot.Settings {
	return snapshot.Settings{
		keyRange: "32768 60999", keyReserved: "", keyReuse: "2", keyTimestamps: "1",
		keyBuckets: "131072", keyFinTimeout: "60",
	}
}

func counters(overflow uint64) map[string]uint64 {
	return map[string]uint64{
		overflowCounter: overflow, "TcpExtListenOverflows": 3, "TcpOutRsts": 4, "TcpExtTW": 100, "TcpExtTWRecycled": 0,
		listenDrops: 5, estabResets: 0, "TcpActiveOpens": 1000, "TcpPassiveOpens": 1000, pawsTimeWait: 0, skippedTimeWait: 0,
	}
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func endpoint(text string) tcp.Endpoint {
	e, err := tcp.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return e
}

// steady is a history of n sockets spread over so many of the latest seconds.
func steady(n, seconds int) *snapshot.CloseHistory {
	h := new(snapshot.CloseHistory)
	for k := range n {
		h.PerSecond[k%seconds]++
	}
	return h
}

// connector is a client's group with live connections and sockets in TIME_WAIT.
func connector(local, remote string, live, timeWait int, h *snapshot.CloseHistory) snapshot.Group {
	g := snapshot.Group{
		Role: tcp.Connector, Rule: tcp.ByRemoteListener,
		Local: endpoint(local), Remote: endpoint(remote), Closes: h,
		Owners: []snapshot.Owner{{Process: "curl", PID: 42, How: snapshot.Inferred}},
	}
	g.States[tcp.Established], g.States[tcp.TimeWait] = live, timeWait
	g.InRange = g.States
	return g
}

func acceptor(local string, live, timeWait int, h *snapshot.CloseHistory) snapshot.Group {
	g := snapshot.Group{
		Role: tcp.Acceptor, Rule: tcp.ByLocalListener, Local: endpoint(local), Closes: h,
		Owners: []snapshot.Owner{{Process: "nginx", PID: 7, How: snapshot.Listening}},
	}
	g.States[tcp.Established], g.States[tcp.TimeWait] = live, timeWait
	return g
}

// with puts groups into the first namespace, and counts their sockets.
func with(groups ...snapshot.Group) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) { fill(&s.Namespaces[0], groups...) }
}

func fill(ns *snapshot.Namespace, groups ...snapshot.Group) {
	for _, g := range groups {
		ns.Groups = append(ns.Groups, g)
		ns.States.Add(g.States)
		ns.Sockstat.TimeWait += int64(g.States.TimeWaitSockets())
	}
}

func set(key, value string) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) { s.Namespaces[0].Settings[key] = value }
}

func unset(key string) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) { delete(s.Namespaces[0].Settings, key) }
}

// beside adds a namespace of its own, label "pod NAME".
func beside(cookie uint64, name string, groups ...snapshot.Group) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		other := world().Namespaces[0]
		other.Cookie, other.Inode, other.Own, other.PID = cookie, cookie, false, int(cookie)
		other.Label = snapshot.Label{Kind: snapshot.LabelPod, Name: name}
		fill(&other, groups...)
		s.Namespaces = append(s.Namespaces, other)
	}
}

// overflowed is a namespace whose TCPTimeWaitOverflow rose by n.
func overflowed(n uint64) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		s.Namespaces[0].Counters = snapshot.NewCounters(counters(10), counters(10+n))
	}
}

// recycled is a namespace in which connect() has taken over so many sockets.
func recycled(n uint64) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) { s.Namespaces[0].Counters.Total["TcpExtTWRecycled"] = n }
}

// rose is a namespace in which counters rose, each name followed by how much.
func rose(rises map[string]uint64) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		before, after := counters(0), counters(0)
		for name, n := range rises {
			before[name] += 0
			after[name] += n
		}
		s.Namespaces[0].Counters = snapshot.NewCounters(before, after)
	}
}

// noWindow is a snapshot whose counters were read once.
func noWindow(overflow uint64) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		s.WindowMS = 0
		s.Namespaces[0].Counters = snapshot.NewCounters(counters(overflow), nil)
	}
}
