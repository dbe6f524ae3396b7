package tcp_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"linger/internal/tcp"
)

func TestStatesByName(t *testing.T) {
	for s := tcp.Established; s < tcp.NumStates; s++ {
		var c tcp.States
		if err := json.Unmarshal([]byte(`{"`+s.String()+`":1}`), &c); err != nil || c[s] != 1 {
			t.Errorf("%d is called %s, which is read as %v: %v", s, s, c, err)
		}
	}
	if got := tcp.State(200).String(); got != "STATE_200" {
		t.Errorf("a state of a later kernel is called %s", got)
	}
}

func TestStatesCounted(t *testing.T) {
	var c tcp.States
	c[tcp.Established], c[tcp.CloseWait], c[tcp.TimeWait], c[tcp.FinWait2TimeWait], c[tcp.Listen] = 5, 2, 30, 4, 1
	if got := c.Live(); got != 7 {
		t.Errorf("%d live, want the 5 ESTABLISHED and 2 CLOSE_WAIT", got)
	}
	if got := c.TimeWaitSockets(); got != 34 {
		t.Errorf("%d time-wait sockets, want those of FIN_WAIT2 too: 34", got)
	}
	if got := c.Total(); got != 42 {
		t.Errorf("%d in all, want 42", got)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"ESTABLISHED":5,"TIME_WAIT":30,"CLOSE_WAIT":2,"LISTEN":1,"FIN_WAIT2_TIME_WAIT":4}`; string(text) != want {
		t.Errorf("JSON is %s, want %s", text, want)
	}
	var back tcp.States
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`{"TIMEWAIT":1}`), &back); err == nil {
		t.Error("an unknown state is read")
	}
}

func TestEndpointText(t *testing.T) {
	for _, test := range []struct {
		endpoint       tcp.Endpoint
		person, stored string
	}{
		{tcp.Endpoint{}, "*", "*"},
		{tcp.Endpoint{Port: 80}, "*:80", "*:80"},
		{tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")}, "10.0.0.1", "10.0.0.1"},
		{tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}, "10.0.0.1:80", "10.0.0.1:80"},
		{tcp.Endpoint{Addr: netip.MustParseAddr("::1"), Port: 80}, "[::1]:80", "[::1]:80"},
		{tcp.Endpoint{Addr: netip.MustParseAddr("fd00::1")}, "fd00::1", "fd00::1"},
		{tcp.Endpoint{Addr: netip.IPv4Unspecified(), Port: 80}, "*:80", "0.0.0.0:80"},
		{tcp.Endpoint{Addr: netip.IPv6Unspecified(), Port: 80}, "*:80", "[::]:80"},
		{tcp.Endpoint{Addr: netip.IPv6Unspecified()}, "*", "::"},
	} {
		if got := test.endpoint.String(); got != test.person {
			t.Errorf("%+v reads %s, want %s", test.endpoint, got, test.person)
		}
		stored, err := test.endpoint.MarshalText()
		if err != nil || string(stored) != test.stored {
			t.Errorf("%+v is stored as %s (%v), want %s", test.endpoint, stored, err, test.stored)
		}
		var back tcp.Endpoint
		if err := back.UnmarshalText(stored); err != nil || back != test.endpoint {
			t.Errorf("%s is read as %+v (%v), want %+v", stored, back, err, test.endpoint)
		}
	}
	for _, text := range []string{"", "*:", "*:65536", "10.0.0.1:", "10.0.0.1:x", "::1:80x", "localhost:80"} {
		if got, err := tcp.ParseEndpoint(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func TestPortRange(t *testing.T) {
	r, err := tcp.ParsePortRange("32768\t60999\n")
	if err != nil || r.Size() != 28232 || !r.Contains(32768) || !r.Contains(60999) || r.Contains(61000) {
		t.Errorf("%v with %d ports: %v", r, r.Size(), err)
	}
	for _, text := range []string{"", "32768", "60999 32768", "1 2 3", "-1 5", "1 65536"} {
		if got, err := tcp.ParsePortRange(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestPortSet(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""}, {"\n", ""}, {"8080", "8080"}, {"9148-9150,8080", "8080,9148-9150"},
		{"1,2,3", "1-3"}, {"10-20,15-30", "10-30"}, {"65535,0", "0,65535"},
	} {
		set, err := tcp.ParsePortSet(test.text)
		if err != nil || set.String() != test.want {
			t.Errorf("%q is read as %q (%v), want %q", test.text, set, err, test.want)
		}
	}
	for _, text := range []string{"a", "1,", "5-4", "1-2-3", "70000"} {
		if set, err := tcp.ParsePortSet(text); err == nil {
			t.Errorf("%q is read as %q", text, set)
		}
	}
}

// A set of ports is what a map of them would be.
func TestPortSetIsASet(t *testing.T) {
	ports := rapid.SliceOf(rapid.Uint16Range(1, 300))
	rapid.Check(t, func(t *rapid.T) {
		some, others := ports.Draw(t, "some"), ports.Draw(t, "others")
		low := rapid.Uint16Range(1, 300).Draw(t, "low")
		r := tcp.PortRange{Low: low, High: low + rapid.Uint16Range(0, 50).Draw(t, "more")}
		model := map[uint16]bool{}
		for _, p := range append(append([]uint16{}, some...), others...) {
			model[p] = true
		}
		set := tcp.PortSetOf(some...).Union(tcp.PortSetOf(others...))
		within := 0
		for p := range uint16(400) {
			if set.Contains(p) != model[p] {
				t.Fatalf("%q contains %d: %v, want %v", set, p, set.Contains(p), model[p])
			}
			if model[p] && r.Contains(p) {
				within++
			}
		}
		if got := set.Within(r); got != within {
			t.Fatalf("%d of %q in %v, want %d", got, set, r, within)
		}
		back, err := tcp.ParsePortSet(set.String())
		if err != nil || cmp.Diff(set, back) != "" {
			t.Fatalf("%q is read back as %q: %v", set, back, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"10.0.0.1:80", "[::1]:80", "*:80", "*", "fe80::1%eth0", "8080,9148-9150", "32768\t60999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := tcp.ParseEndpoint(text); err == nil {
			stored, err := e.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := tcp.ParseEndpoint(string(stored)); err != nil || back != e {
				t.Errorf("%q is stored as %q, which is read as %+v: %v", text, stored, back, err)
			}
		}
		if s, err := tcp.ParsePortSet(text); err == nil {
			if back, err := tcp.ParsePortSet(s.String()); err != nil || back.String() != s.String() {
				t.Errorf("%q is %q, which is read as %q: %v", text, s, back, err)
			}
		}
		if r, err := tcp.ParsePortRange(text); err == nil && r.Size() < 1 {
			t.Errorf("%q is a range of %d ports", text, r.Size())
		}
	})
}
