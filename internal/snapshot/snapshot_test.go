package snapshot_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

func TestCounters(t *testing.T) {
	first := map[string]uint64{"same": 5, "rose": 5, "reset": 100}
	second := map[string]uint64{"same": 5, "rose": 8, "reset": 7, "new": 3}
	for _, test := range []struct {
		name     string
		counters snapshot.Counters
		counter  string
		rise     uint64
		known    bool
	}{
		{"no change", snapshot.NewCounters(first, second), "same", 0, true},
		{"a rise", snapshot.NewCounters(first, second), "rose", 3, true},
		{"a reset counts from zero", snapshot.NewCounters(first, second), "reset", 7, true},
		{"seen once only", snapshot.NewCounters(first, second), "new", 0, true},
		{"never seen", snapshot.NewCounters(first, second), "none", 0, false},
		{"one reading", snapshot.NewCounters(first, nil), "rose", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if rise, known := test.counters.Rose(test.counter); rise != test.rise || known != test.known {
				t.Errorf("rose by %d (known: %v), want %d (%v)", rise, known, test.rise, test.known)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	s := snapshot.Settings{
		"net.ipv4.tcp_fin_timeout":         "60",
		"net.ipv4.tcp_mem":                 "1 2 3",
		"net.ipv4.ip_local_port_range":     "32768 60999",
		"net.ipv4.ip_local_reserved_ports": "",
	}
	if n, ok := s.Int("net.ipv4.tcp_fin_timeout"); n != 60 || !ok {
		t.Errorf("tcp_fin_timeout is %d, known: %v", n, ok)
	}
	for _, key := range []string{"net.ipv4.tcp_mem", "net.ipv4.tcp_tw_recycle"} {
		if n, ok := s.Int(key); ok {
			t.Errorf("%s is the number %d", key, n)
		}
	}
	if r, ok := s.PortRange(); !ok || r != (tcp.PortRange{Low: 32768, High: 60999}) {
		t.Errorf("range %v, known: %v", r, ok)
	}
	if set, ok := s.ReservedPorts(); !ok || set != nil {
		t.Errorf("reserved %q, known: %v; want a known nothing", set, ok)
	}
	if _, ok := (snapshot.Settings{}).ReservedPorts(); ok {
		t.Error("a setting that was not read is known")
	}
}

// What is unknown stays so, and is not read back as a zero.
func TestJSONKeepsTheUnknown(t *testing.T) {
	no := false
	zero := int64(0)
	want := snapshot.Snapshot{
		Schema:  snapshot.Schema,
		TakenAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Host:    snapshot.Host{Orphans: &zero, Settings: snapshot.Settings{}},
		Namespaces: []snapshot.Namespace{{
			Cookie:    4143,
			Label:     snapshot.Label{Kind: snapshot.LabelNamed, Name: "blue"},
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::1")},
			Settings:  snapshot.Settings{"net.ipv4.tcp_tw_reuse": "2"},
			Counters:  snapshot.NewCounters(map[string]uint64{"TcpExtTW": 1}, nil),
			Listeners: []snapshot.Listener{{Local: tcp.Endpoint{Addr: netip.IPv6Unspecified(), Port: 80}, V6Only: &no}},
			Groups: []snapshot.Group{{
				Role: tcp.Connector, Rule: tcp.ByFanOut,
				Local:  tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")},
				Remote: tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Port: 443},
				States: tcp.States{tcp.TimeWait: 7},
				Closes: &snapshot.CloseHistory{Past: 7},
			}},
		}},
		Gaps: []snapshot.Gap{},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got snapshot.Snapshot
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if _, known := got.Namespaces[0].Counters.Rose("TcpExtTW"); known {
		t.Error("a rise is known that was not read")
	}
	if got.Host.TCPMemoryPages != nil || got.Host.Memory != nil || got.Namespaces[0].Sockstat != nil {
		t.Error("what was not read is known")
	}
}

func TestLabels(t *testing.T) {
	for label, want := range map[snapshot.Label]string{
		{Kind: snapshot.LabelHost, Name: "host"}:                "host",
		{Kind: snapshot.LabelNamed, Name: "blue"}:               "netns blue",
		{Kind: snapshot.LabelContainer, Name: "0123456789ab"}:   "container 0123456789ab",
		{Kind: snapshot.LabelProcess, Name: "nginx (pid 4711)"}: "process nginx (pid 4711)",
	} {
		if got := label.String(); got != want {
			t.Errorf("%+v reads %q, want %q", label, got, want)
		}
		if got := snapshot.ParseLabel(want); got != label {
			t.Errorf("%q is taken for %+v, want %+v", want, got, label)
		}
	}
	for _, text := range []string{"", "shop", "a shop", "hosts of web", "netns", "pod"} {
		if got := snapshot.ParseLabel(text); got.Kind != "" || got.String() != text {
			t.Errorf("%q is taken for %+v, and reads %q", text, got, got)
		}
	}
}
