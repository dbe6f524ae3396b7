package group

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// These tests feed the Sorter with sockets by hand, since their order decides;
// tests against the kernel are in the laboratory.

var ephemeral = snapshot.Settings{"net.ipv4.ip_local_port_range": "32768 60999"}

func addr(text string) tcp.Addr { return netip.MustParseAddr(text).As16() }

func endpoint(text string) tcp.Endpoint {
	e, err := tcp.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return e
}

// socket is a connection in some state; a TIME_WAIT has expires ms left.
func socket(local string, localPort uint16, remote string, remotePort uint16, state tcp.State, expires uint32) *tcp.Socket {
	return &tcp.Socket{
		State: state, Local: addr(local), LocalPort: localPort,
		Remote: addr(remote), RemotePort: remotePort, Expires: expires,
	}
}

// hosts are namespaces with addresses and listeners, for an index.
func hosts(namespaces ...snapshot.Namespace) *Index {
	var all []*snapshot.Namespace
	for i := range namespaces {
		all = append(all, &namespaces[i])
	}
	return NewIndex(all)
}

func machine(addresses []string, listeners ...string) (ns snapshot.Namespace) {
	for _, a := range addresses {
		ns.Addresses = append(ns.Addresses, netip.MustParseAddr(a))
	}
	for _, l := range listeners {
		ns.Listeners = append(ns.Listeners, snapshot.Listener{Local: endpoint(l)})
	}
	return ns
}

type told struct {
	Role          tcp.Role
	Rule          tcp.RoleRule
	Local, Remote string
	Sockets       int
}

func toldOf(groups []*Group) (all []told) {
	for _, g := range groups {
		s := g.Snapshot()
		all = append(all, told{s.Role, s.Rule, s.Local.String(), s.Remote.String(), s.States.Total()})
	}
	return all
}

func TestRoles(t *testing.T) {
	own := machine([]string{"10.0.0.1", "127.0.0.1", "::1"}, "0.0.0.0:80", "[fd00::1]:443")
	other := machine([]string{"10.0.0.2"}, "10.0.0.2:5432")
	for _, test := range []struct {
		name    string
		sockets func(add func(*tcp.Socket))
		want    []told
	}{
		{"the remote end listens in another namespace", func(add func(*tcp.Socket)) {
			add(socket("10.0.0.1", 40000, "10.0.0.2", 5432, tcp.TimeWait, 1))
		}, []told{{tcp.Connector, tcp.ByRemoteListener, "10.0.0.1", "10.0.0.2:5432", 1}}},
		{"a wildcard listener covers the local end", func(add func(*tcp.Socket)) {
			add(socket("10.0.0.1", 80, "192.0.2.9", 50000, tcp.TimeWait, 1))
		}, []told{{tcp.Acceptor, tcp.ByLocalListener, "10.0.0.1:80", "*", 1}}},
		{"an IPv4 wildcard does not cover IPv6", func(add func(*tcp.Socket)) {
			add(socket("fd00::1", 80, "fd00::9", 50000, tcp.TimeWait, 1))
		}, []told{{tcp.RoleUnknown, tcp.ByNoRule, "fd00::1", "[fd00::9]:50000", 1}}},
		{"an outgoing connection from a listening port to a listener", func(add func(*tcp.Socket)) {
			add(socket("10.0.0.1", 80, "10.0.0.2", 5432, tcp.Established, 0))
		}, []told{{tcp.Connector, tcp.ByRemoteListener, "10.0.0.1", "10.0.0.2:5432", 1}}},
		{"both ends of a loopback connection", func(add func(*tcp.Socket)) {
			add(socket("127.0.0.1", 40000, "127.0.0.1", 80, tcp.Established, 0))
			add(socket("127.0.0.1", 80, "127.0.0.1", 40000, tcp.Established, 0))
		}, []told{
			{tcp.Acceptor, tcp.ByLocalListener, "127.0.0.1:80", "*", 1},
			{tcp.Connector, tcp.ByRemoteListener, "127.0.0.1", "127.0.0.1:80", 1},
		}},
		{"eight connections to one endpoint nobody can see", func(add func(*tcp.Socket)) {
			for i := range uint16(8) {
				add(socket("10.0.0.1", 40000+i, "192.0.2.1", 443, tcp.TimeWait, 1))
			}
		}, []told{{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.1:443", 8}}},
		{"seven are not enough", func(add func(*tcp.Socket)) {
			for i := range uint16(7) {
				add(socket("10.0.0.1", 40000+i, "192.0.2.1", 443, tcp.TimeWait, 1))
			}
		}, []told{{tcp.RoleUnknown, tcp.ByNoRule, "10.0.0.1", "192.0.2.1:443", 7}}},
		{"many destinations, one service port", func(add func(*tcp.Socket)) {
			for i := range uint16(8) {
				add(socket("10.0.0.1", 40000+i, "192.0.2."+string('1'+rune(i)), 443, tcp.TimeWait, 1))
			}
		}, []told{
			{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.1:443", 1}, {tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.2:443", 1},
			{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.3:443", 1}, {tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.4:443", 1},
			{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.5:443", 1}, {tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.6:443", 1},
			{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.7:443", 1}, {tcp.Connector, tcp.ByFanOut, "10.0.0.1", "192.0.2.8:443", 1},
		}},
		{"a listener that has exited, ten of its clients", func(add func(*tcp.Socket)) {
			for i := range uint16(10) {
				add(socket("10.0.0.1", 9000, "192.0.2.1", 50000+i, tcp.TimeWait, 1))
			}
		}, []told{{tcp.Acceptor, tcp.ByFanOut, "10.0.0.1:9000", "*", 10}}},
		{"a listener that has exited, 100,000 of its clients", func(add func(*tcp.Socket)) {
			for i := range 100_000 {
				add(socket("10.0.0.1", 9000, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String(), uint16(20000+i%40000), tcp.TimeWait, 1))
			}
		}, []told{{tcp.Acceptor, tcp.ByFanOut, "10.0.0.1:9000", "*", 100_000}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			so := NewSorter(hosts(own, other), 0, ephemeral, 4096, nil)
			test.sockets(so.Add)
			if diff := cmp.Diff(test.want, toldOf(so.Done().Groups)); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}

// The kernel gives one source port to connections with many destinations; this
// must not look like a service on that port.
func TestSharedSourcePortsAreNoService(t *testing.T) {
	so := NewSorter(hosts(machine([]string{"10.0.0.1"})), 0, ephemeral, 4096, nil)
	for destination := range 200 {
		remote := netip.AddrFrom4([4]byte{198, 51, 100, byte(destination)}).String()
		for port := range uint16(15) {
			so.Add(socket("10.0.0.1", 40000+port, remote, 443, tcp.TimeWait, 1))
		}
	}
	groups := so.Done().Groups
	if len(groups) != 200 {
		t.Fatalf("%d groups, want one for each of 200 destinations", len(groups))
	}
	for _, g := range groups {
		if g.Role != tcp.Connector || g.Sockets != 15 {
			t.Fatalf("%+v, want a connector's 15 sockets", toldOf(groups[:1]))
		}
	}
}

// More groups than are kept: the large one shows although it comes last, and
// nothing is lost in silence.
func TestCulpritThatComesLast(t *testing.T) {
	const capacity = 256
	so := NewSorter(hosts(machine([]string{"10.0.0.1"})), 0, ephemeral, capacity, nil)
	total := 0
	for i := range 20_000 {
		remote := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String()
		for port := range uint16(3) {
			so.Add(socket("10.0.0.1", 40000+port, remote, 443, tcp.TimeWait, 1))
			total++
		}
		if n := len(so.connectors) + len(so.acceptors); n > 2*capacity {
			t.Fatalf("%d groups counted at a time, want at most %d", n, 2*capacity)
		}
	}
	for port := range uint16(5000) {
		so.Add(socket("10.0.0.1", 40000+port, "203.0.113.1", 443, tcp.TimeWait, 1))
		total++
	}
	groups := so.Done().Groups
	if first := toldOf(groups)[0]; first != (told{tcp.Connector, tcp.ByFanOut, "10.0.0.1", "203.0.113.1:443", 5000}) {
		t.Errorf("first is %+v, want the 5,000 to 203.0.113.1:443", first)
	}
	if len(groups) != capacity {
		t.Errorf("%d groups kept, want %d", len(groups), capacity)
	}
	kept := 0
	for _, g := range groups {
		kept += g.Sockets
	}
	if kept+so.other.States.Total() != total {
		t.Errorf("%d kept and %d discarded, want %d together", kept, so.other.States.Total(), total)
	}
	if so.other.Groups != 20_001-capacity {
		t.Errorf("%d groups discarded, want %d", so.other.Groups, 20_001-capacity)
	}
}

func TestHistory(t *testing.T) {
	for _, test := range []struct {
		expires uint32 // ms left
		second  int    // index, -1 for past
	}{
		{60_000, 0}, {59_001, 0}, {59_000, 1}, {30_500, 29}, {30_000, 30}, {1, 59}, {0, -1}, {61_000, 0},
	} {
		var h snapshot.CloseHistory
		record(&h, test.expires)
		var want snapshot.CloseHistory
		if test.second < 0 {
			want.Past = 1
		} else {
			want.PerSecond[test.second] = 1
		}
		if diff := cmp.Diff(want, h); diff != "" {
			t.Errorf("%d ms left (-want +got):\n%s", test.expires, diff)
		}
	}
}

func TestBusiestClients(t *testing.T) {
	so := NewSorter(hosts(machine([]string{"10.0.0.1"}, "0.0.0.0:80")), 0, ephemeral, 64, nil)
	for i := range 2000 {
		remote := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String()
		so.Add(socket("10.0.0.1", 80, remote, 50000, tcp.Established, 0))
		so.Add(socket("10.0.0.1", 80, "203.0.113.1", uint16(10000+i), tcp.TimeWait, 1))
	}
	g := so.Done().Groups[0].Snapshot()
	if len(g.Clients) != clientsTold || g.ClientsComplete {
		t.Errorf("%d clients, complete %v; want %d of more", len(g.Clients), g.ClientsComplete, clientsTold)
	}
	want := snapshot.Client{Addr: netip.MustParseAddr("203.0.113.1"), Sockets: 2000, TimeWait: 2000}
	if diff := cmp.Diff(want, g.Clients[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("busiest client (-want +got):\n%s", diff)
	}
}

func TestInRange(t *testing.T) {
	so := NewSorter(hosts(machine([]string{"10.0.0.1"})), 0, ephemeral, 64, nil)
	for i := range uint16(10) {
		so.Add(socket("10.0.0.1", 32768+i, "192.0.2.1", 443, tcp.TimeWait, 1))
		so.Add(socket("10.0.0.1", 20000+i, "192.0.2.1", 443, tcp.TimeWait, 1))
	}
	g := so.Done().Groups[0].Snapshot()
	if g.States[tcp.TimeWait] != 20 || g.InRange[tcp.TimeWait] != 10 {
		t.Errorf("%d TIME_WAIT, %d in the range; want 20 and 10", g.States[tcp.TimeWait], g.InRange[tcp.TimeWait])
	}
}

func TestListenerCovers(t *testing.T) {
	only, both := true, false
	v6 := func(l string, v6only *bool) snapshot.Namespace {
		return snapshot.Namespace{Listeners: []snapshot.Listener{{Local: endpoint(l), V6Only: v6only}}}
	}
	for _, test := range []struct {
		name string
		ns   snapshot.Namespace
		addr string
		want bool
	}{
		{"the address itself", machine(nil, "10.0.0.1:80"), "10.0.0.1", true},
		{"another address", machine(nil, "10.0.0.1:80"), "10.0.0.2", false},
		{"another port", machine(nil, "10.0.0.1:81"), "10.0.0.1", false},
		{"IPv4 wildcard", machine(nil, "0.0.0.0:80"), "10.0.0.1", true},
		{"IPv6 wildcard, IPv4 too", v6("[::]:80", &both), "10.0.0.1", true},
		{"IPv6 wildcard, v6only", v6("[::]:80", &only), "10.0.0.1", false},
		{"IPv6 wildcard, v6only, IPv6", v6("[::]:80", &only), "fd00::1", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := hosts(test.ns).Covers(0, addr(test.addr), 80); got != test.want {
				t.Errorf("covers %s: %v, want %v", test.addr, got, test.want)
			}
		})
	}
}

func TestWhoHasTheAddress(t *testing.T) {
	index := hosts(
		machine([]string{"10.0.0.1", "127.0.0.1"}, "0.0.0.0:80"),
		machine([]string{"10.0.0.2", "127.0.0.1"}, "0.0.0.0:80"),
		machine([]string{"10.0.0.2", "10.0.0.3", "127.0.0.1"}, "0.0.0.0:80"),
	)
	for _, test := range []struct {
		name string
		from int
		addr string
		want []int
	}{
		{"loopback is one's own", 1, "127.0.0.1", []int{1}},
		{"all of 127.0.0.0/8 is", 1, "127.9.9.9", []int{1}},
		{"another namespace", 0, "10.0.0.3", []int{2}},
		{"one's own address, though another has it too", 2, "10.0.0.2", []int{2}},
		{"two have it", 0, "10.0.0.2", []int{1, 2}},
		{"nobody has it", 0, "192.0.2.1", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, index.RemoteNamespaces(test.from, addr(test.addr), 80)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Of several listeners on a port the kernel prefers that of the very address, then
// that of the one family.
func TestWhichListenerAccepts(t *testing.T) {
	index := hosts(machine(nil, "[::]:80", "0.0.0.0:80", "10.0.0.1:80", "[fd00::1]:80"))
	for to, want := range map[string][]int{
		"10.0.0.1": {2}, "10.0.0.2": {1}, "127.0.0.1": {1}, "fd00::1": {3}, "::1": {0},
	} {
		if diff := cmp.Diff(want, index.Covering(0, addr(to), 80)); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", to, diff)
		}
	}
}

// A time-wait socket in FIN_WAIT2 is young for 3 s of what tcp_fin_timeout gives it, or
// half of that where it is less; above 60 s none is.
func TestYoungFinWait2(t *testing.T) {
	for _, tt := range []struct {
		timeout string
		left    uint32
		young   bool
	}{
		{"60", 57_001, true}, {"60", 57_000, false}, {"30", 27_001, true}, {"30", 27_000, false},
		{"2", 1001, true}, {"2", 1000, false}, {"90", 30_000, false}, {"", 59_000, false},
	} {
		settings := snapshot.Settings{"net.ipv4.tcp_fin_timeout": tt.timeout}
		so := NewSorter(hosts(machine([]string{"10.0.0.1"})), 0, settings, 64, nil)
		so.Add(socket("10.0.0.1", 40000, "10.0.0.2", 80, tcp.FinWait2TimeWait, tt.left))
		so.Add(socket("10.0.0.1", 40001, "10.0.0.2", 80, tcp.TimeWait, 60_000))
		if got := so.Done().Groups[0].Snapshot().YoungFinWait2 == 1; got != tt.young {
			t.Errorf("tcp_fin_timeout=%s, %d ms left: young is %v", tt.timeout, tt.left, got)
		}
	}
}

// Who has the live sockets whose ports look bound is asked for by itself.
func TestOtherParityInodes(t *testing.T) {
	so := NewSorter(hosts(machine([]string{"10.0.0.1"})), 0, ephemeral, 64, nil)
	for i := range uint16(40) {
		s := socket("10.0.0.1", 32768+i, "10.0.0.2", 80, tcp.Established, 0)
		s.Inode = uint32(1000 + i)
		so.Add(s)
	}
	g := so.Done().Groups[0]
	if g.OtherParityInodes == nil || len(g.OtherParityInodes.Inodes) != sampleSize || g.OtherParityInodes.Seen != 20 {
		t.Fatalf("sample %+v, want %d of 20", g.OtherParityInodes, sampleSize)
	}
	for _, inode := range g.OtherParityInodes.Inodes {
		if inode%2 == uint32(0) {
			t.Errorf("inode %d has a port of the low end's parity", inode)
		}
	}
}
