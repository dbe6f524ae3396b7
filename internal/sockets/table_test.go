package sockets

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

func endpoint(text string) tcp.Endpoint {
	e, err := tcp.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return e
}

// host has a client with two destinations, and a service in another namespace.
func host() *snapshot.Snapshot {
	states := func(timeWait, established int) (s tcp.States) {
		s[tcp.TimeWait], s[tcp.Established] = timeWait, established
		return s
	}
	settings := snapshot.Settings{
		"net.ipv4.ip_local_port_range": "10000 10999", "net.ipv4.ip_local_reserved_ports": "",
		"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_timestamps": "1",
	}
	shop := snapshot.Owner{Process: "shop", PID: 7, How: snapshot.Inferred}
	busy := &snapshot.CloseHistory{}
	busy.PerSecond[0] = 600
	old := &snapshot.CloseHistory{Past: 1, LowerBound: true}
	return &snapshot.Snapshot{Namespaces: []snapshot.Namespace{
		{
			Label: snapshot.Label{Kind: snapshot.LabelNamed, Name: "front"}, Settings: settings,
			Groups: []snapshot.Group{
				{
					Role: tcp.Connector, Local: endpoint("10.0.0.1"), Remote: endpoint("10.0.0.2:5432"),
					States: states(600, 1), InRange: states(600, 1), Closes: busy, Owners: []snapshot.Owner{shop},
				},
				{
					Role: tcp.Connector, Local: endpoint("10.0.0.1"), Remote: endpoint("[2001:db8::2]:443"),
					States: states(1, 700), InRange: states(1, 700), Closes: old, Owners: []snapshot.Owner{shop},
				},
			},
			Other: &snapshot.Other{Groups: 9, States: states(12, 0)},
		},
		{
			Label: snapshot.Label{Kind: snapshot.LabelNamed, Name: "back"}, Settings: settings,
			Groups: []snapshot.Group{{
				Role: tcp.Acceptor, Local: endpoint("10.0.0.2:5432"), States: states(0, 9),
				Clients: []snapshot.Client{{Addr: netip.MustParseAddr("10.0.0.1"), Sockets: 8}},
			}},
		},
	}}
}

func TestTable(t *testing.T) {
	match := func(text string) []tcp.Match {
		m, err := tcp.ParseMatch(text)
		if err != nil {
			t.Fatal(err)
		}
		return []tcp.Match{m}
	}
	for _, test := range []struct {
		name    string
		query   Query
		sockets []int // of each row
	}{
		{"all", Query{By: ByGroup}, []int{701, 601, 9}},
		{"a state", Query{By: ByGroup, States: []tcp.State{tcp.TimeWait}}, []int{600, 1}},
		{"the nearest to the end of its ports", Query{By: ByGroup, Order: ByBudget, Top: 1}, []int{601}},
		{"the most closes", Query{By: ByGroup, Order: ByCloses}, []int{601, 701, 9}},
		{"a role", Query{By: ByGroup, Roles: []tcp.Role{tcp.Acceptor}}, []int{9}},
		{"the port of a service, of both ends", Query{By: ByGroup, Ports: []uint16{5432}}, []int{601, 9}},
		{"an IPv6 prefix", Query{By: ByGroup, Remote: match("2001:db8::/32")}, []int{701}},
		{"an address and port", Query{By: ByGroup, Remote: match("10.0.0.2:5432")}, []int{601}},
		{"a local address and port", Query{By: ByGroup, Local: match("10.0.0.2:5432")}, []int{9}},
		{"both ends of a service", Query{By: ByService}, []int{701, 610}},
		{"by process", Query{By: ByProcess}, []int{1302, 9}},
		{"by state", Query{By: ByState}, []int{710, 601}},
		{"by namespace", Query{By: ByNamespace}, []int{1302, 9}},
		{"by destination", Query{By: ByDestination, Roles: []tcp.Role{tcp.Connector}}, []int{701, 601}},
	} {
		table := NewTable(host(), test.query)
		var got []int
		for _, row := range table.Rows {
			got = append(got, row.States.Total())
		}
		if !slices.Equal(got, test.sockets) {
			t.Errorf("%s: %v sockets, want %v", test.name, got, test.sockets)
		}
		if table.Other.Groups != 9 || !strings.Contains(strings.Join(table.Notes, "\n"), "folded, whatever was asked for: 9, with 12 sockets") {
			t.Errorf("%s: does not tell of the groups that were folded: %v", test.name, table.Notes)
		}
	}
	top := NewTable(host(), Query{By: ByGroup, Top: 1})
	if top.Left != 2 || top.LeftStates.Total() != 610 || len(top.Rows) != 1 {
		t.Errorf("the first row leaves out %d with %d sockets", top.Left, top.LeftStates.Total())
	}
}

// A gathered row tells of the fullest budget, of all closes, and that they are a lower
// bound where any are.
func TestGatheredRow(t *testing.T) {
	row := NewTable(host(), Query{By: ByProcess}).Rows[0]
	if row.Budget == nil || row.Budget.Used != 601 || row.Groups != 2 || row.Key != "shop (pid 7)" {
		t.Errorf("%+v", row)
	}
	if row.Closes == nil || row.Closes.PerSecond[0] != 600 || row.Closes.Past != 1 || !row.Closes.LowerBound {
		t.Errorf("closes %+v", row.Closes)
	}
	if row.Local != (tcp.Endpoint{}) || row.Role != tcp.Connector || row.Netns != "netns front" {
		t.Errorf("%v %v %v", row.Local, row.Role, row.Netns)
	}
}

// What an acceptor's clients are is known of the busiest alone.
func TestClientsOfAnAcceptor(t *testing.T) {
	here := host()
	at := []tcp.Match{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	table := NewTable(here, Query{By: ByGroup, Remote: at})
	if len(table.Rows) != 0 || !strings.Contains(table.Notes[0], "have more clients than were kept: 1;") {
		t.Errorf("%d rows, %v", len(table.Rows), table.Notes)
	}
	here.Namespaces[1].Groups[0].ClientsComplete = true
	if table = NewTable(here, Query{By: ByGroup, Remote: at}); len(table.Notes) != 1 {
		t.Errorf("all clients are known, and yet: %v", table.Notes)
	}
	at[0].Prefix = netip.MustParsePrefix("10.0.0.0/8")
	table = NewTable(here, Query{By: ByGroup, Remote: at, Roles: []tcp.Role{tcp.Acceptor}})
	if len(table.Rows) != 1 || !strings.Contains(table.Notes[0], "count all of their clients") {
		t.Errorf("%d rows, %v", len(table.Rows), table.Notes)
	}
}
