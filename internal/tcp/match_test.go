package tcp

import (
	"net/netip"
	"slices"
	"testing"
)

func TestMatch(t *testing.T) {
	at := func(text string) Endpoint {
		return Endpoint{netip.MustParseAddrPort(text).Addr(), netip.MustParseAddrPort(text).Port()}
	}
	for _, test := range []struct {
		match   string
		chosen  []string
		refused []string
	}{
		{"*", []string{"10.0.0.1:80", "[::1]:80"}, nil},
		{"*:443", []string{"10.0.0.1:443", "[2001:db8::1]:443"}, []string{"10.0.0.1:80"}},
		{"10.0.0.1", []string{"10.0.0.1:80", "[::ffff:10.0.0.1]:9"}, []string{"10.0.0.2:80", "[::1]:80"}},
		{"10.0.0.0/8", []string{"10.255.0.1:80"}, []string{"11.0.0.1:80", "[::a00:1]:80"}},
		{"10.7.7.7/8", []string{"10.255.0.1:80"}, []string{"11.0.0.1:80"}},
		{"10.0.0.1:443", []string{"10.0.0.1:443"}, []string{"10.0.0.1:444", "10.0.0.2:443"}},
		{"2001:db8::/32", []string{"[2001:db8:1::1]:5"}, []string{"[2001:db9::1]:5", "10.0.0.1:5"}},
		{"[2001:db8::1]:443", []string{"[2001:db8::1]:443"}, []string{"[2001:db8::2]:443", "[2001:db8::1]:80"}},
		{"::ffff:10.0.0.0/104", []string{"10.1.2.3:5"}, []string{"11.0.0.1:5"}},
	} {
		m, err := ParseMatch(test.match)
		if err != nil {
			t.Errorf("%s: %v", test.match, err)
			continue
		}
		for _, e := range test.chosen {
			if !m.Chooses(at(e)) {
				t.Errorf("%s does not choose %s", test.match, e)
			}
		}
		for _, e := range test.refused {
			if m.Chooses(at(e)) {
				t.Errorf("%s chooses %s", test.match, e)
			}
		}
	}
	for _, text := range []string{
		"", "host", "80", ":80", "10.0.0.1:0", "*:0", "*:65536", "10.0.0.0/33", "10.0.0.0/8:80", "fe80::1%eth0", "::1:", "/8",
	} {
		if m, err := ParseMatch(text); err == nil {
			t.Errorf("%q is read as %v", text, m)
		}
	}
}

func TestStatesNamed(t *testing.T) {
	for text, want := range map[string][]State{
		"TIME_WAIT": {TimeWait}, "time-wait": {TimeWait}, "estab": {Established}, "FIN-WAIT-2": {FinWait2, FinWait2TimeWait},
		"fin_wait2_time_wait": {FinWait2TimeWait}, "syn-recv": {SynRecv}, "listen": {Listen},
	} {
		if got, err := StatesNamed(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "waiting", "STATE_0", "timewait!"} {
		if got, err := StatesNamed(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func FuzzParseMatch(f *testing.F) {
	for _, text := range []string{
		"*", "*:443", "10.0.0.1", "10.0.0.0/8", "10.0.0.1:443", "[2001:db8::1]:443", "::/0", "::ffff:1.2.3.4/99", "fe80::1%a",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMatch(text)
		if err != nil {
			return
		}
		again, err := ParseMatch(m.String())
		if err != nil || again != m {
			t.Errorf("%q is %v, which is read as %v, %v", text, m, again, err)
		}
	})
}
