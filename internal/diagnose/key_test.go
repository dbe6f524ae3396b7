package diagnose

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// keysOf are the keys of all findings, in a fixed order.
func keysOf(d Diagnosis) []string {
	keys := []string{}
	for _, f := range everyFinding(d) {
		keys = append(keys, f.Key.String())
	}
	slices.Sort(keys)
	return keys
}

// drawHost is a drawn snapshot that a kernel could have: no namespace and no group is
// there twice.
func drawHost(t *rapid.T) *snapshot.Snapshot {
	s := drawSnapshot(t)
	namespaces := map[NetnsID]bool{}
	s.Namespaces = slices.DeleteFunc(s.Namespaces, func(ns snapshot.Namespace) bool {
		id := idOf(ns.Cookie, ns.Inode)
		twice := namespaces[id]
		namespaces[id] = true
		return twice || ns.Sockstat == nil
	})
	if len(s.Namespaces) > 0 {
		for _, trouble := range drawTroubles(t) {
			trouble(s)
		}
	}
	for i := range s.Namespaces {
		groups := map[Subject]bool{}
		s.Namespaces[i].Groups = slices.DeleteFunc(s.Namespaces[i].Groups, func(g snapshot.Group) bool {
			subject := Subject{g.Role, g.Local, g.Remote}
			twice := groups[subject]
			groups[subject] = true
			return twice
		})
	}
	return s
}

// otherwise is the same host as it may be read another time: in another order, and its
// namespaces by other names.
func otherwise(s *snapshot.Snapshot) *snapshot.Snapshot {
	other := *s
	other.Namespaces = slices.Clone(s.Namespaces)
	slices.Reverse(other.Namespaces)
	for i := range other.Namespaces {
		ns := &other.Namespaces[i]
		ns.PID, ns.Path = 4711+i, ""
		ns.Label = snapshot.Label{Kind: snapshot.LabelProcess, Name: fmt.Sprintf("other %d", i)}
		ns.Groups, ns.SelfConnected = slices.Clone(ns.Groups), slices.Clone(ns.SelfConnected)
		slices.Reverse(ns.Groups)
		slices.Reverse(ns.SelfConnected)
	}
	return &other
}

// What programs find findings, numbers and suspects by is there once, and stays.
func TestFactsHaveOneName(t *testing.T) {
	rules := map[Slug]Rule{}
	for _, r := range Rules() {
		rules[r.Slug] = r
	}
	check := func(t interface{ Errorf(string, ...any) }, s *snapshot.Snapshot) {
		d := Judge(s, DefaultThresholds())
		keys := map[Key]bool{}
		for _, f := range everyFinding(d) {
			if keys[f.Key] || f.Key.Problem != f.Problem {
				t.Errorf("two findings are %s, or it is of another problem than %s", f.Key, f.Problem)
			}
			keys[f.Key] = true
			numbers, suspects := map[EvidenceID]bool{}, map[SuspectID]bool{}
			for _, e := range f.Evidence {
				if e.ID == "" || numbers[e.ID] {
					t.Errorf("%s: %q, the ID of %q, is empty or there twice", f.Key, e.ID, e.Name)
				}
				numbers[e.ID] = true
			}
			for _, r := range f.RuledOut {
				if r.ID == "" || suspects[r.ID] {
					t.Errorf("%s: %q, the ID of %q, is empty or there twice", f.Key, r.ID, r.Suspect)
				}
				suspects[r.ID] = true
			}
			for _, id := range f.Remedies {
				if !slices.Contains(rules[f.Problem].Remedies, id) {
					t.Errorf("%s names remedy %s, which its rule does not declare", f.Key, id)
				}
			}
		}
		if inLine := slices.Compact(keysOf(d)); len(inLine) != len(keys) {
			t.Errorf("%d keys are written in %d ways: %q", len(keys), len(inLine), inLine)
		}
		if diff := cmp.Diff(keysOf(d), keysOf(Judge(otherwise(s), DefaultThresholds()))); diff != "" {
			t.Errorf("the same host in another order: %s", diff)
		}
		for _, u := range d.Unknown {
			if u.Lack == "" || u.Netns != "" && len(u.Places) == 0 {
				t.Errorf("%s: what is missing has no name or no place: %+v", u.Problem, u)
			}
		}
	}
	check(t, allAtOnce())
	check(t, world(listening(17, 16), listening(17, 16))) // two workers with SO_REUSEPORT
	rapid.Check(t, func(t *rapid.T) { check(t, drawHost(t)) })
}

// What grows, shrinks, moves or takes the lead of others is the same finding as before.
func TestKeysOutliveTheirNumbers(t *testing.T) {
	type changes = []func(*snapshot.Snapshot)
	bind := func(remote string, n int) snapshot.Group {
		g := odd(n, n)
		g.Remote = endpoint(remote)
		return g
	}
	leak := func(local string, n int) snapshot.Group {
		g := leaking(n, 0, curl)
		g.Local = endpoint(local)
		return g
	}
	file := func(line int, value string) func(*snapshot.Snapshot) {
		return host(func(h *snapshot.Host) {
			h.Boot = []snapshot.BootSetting{
				{Key: keyFinTimeout, Value: value, File: "/etc/sysctl.conf", Line: line, Loaders: []string{"procps"}},
				{Key: keyRecycle, Value: "1", File: "/etc/sysctl.conf", Line: line + 1, Loaders: []string{"procps"}},
			}
		})
	}
	orphans := func(here, there int) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			fill(&s.Namespaces[0], dying(here, 0))
			beside(7, "shop", dying(there, 0))(s)
			host(func(h *snapshot.Host) { *h.Orphans = 60000 })(s)
		}
	}
	self := func(ports ...string) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			for _, p := range ports {
				s.Namespaces[0].SelfConnected = append(s.Namespaces[0].SelfConnected, endpoint(p))
			}
		}
	}
	services := func(one, other int) func(*snapshot.Snapshot) {
		return with(acceptor("10.0.0.2:80", 2000, one, steady(one, 60)), acceptor("10.0.0.2:81", 2000, other, steady(other, 60)))
	}
	for _, tt := range []struct {
		name          string
		before, after changes
		n             int
	}{
		{"more of them", changes{with(halfClosed(100, 0))}, changes{with(halfClosed(900, 40))}, 1},
		{
			"from warning to critical",
			changes{with(connector(client, service, 17500, 0, nil))},
			changes{with(connector(client, service, 28232, 0, nil))}, 1,
		},
		{
			"a leak that another source has more of",
			changes{with(leak(client, 90), leak("10.0.0.9", 60))},
			changes{with(leak(client, 90), leak("10.0.0.9", 600))}, 1,
		},
		{
			"a source whose largest destination is another",
			changes{with(bind("10.0.0.5:80", 90), bind("10.0.0.6:80", 60))},
			changes{with(bind("10.0.0.6:80", 90), bind("10.0.0.5:80", 60))}, 1,
		},
		{
			"refused SYNs, with another service the busiest",
			changes{services(30, 20), rose(map[string]uint64{pawsTimeWait: 3})},
			changes{services(20, 30), rose(map[string]uint64{pawsTimeWait: 9})}, 1,
		},
		{"one more socket that is connected to itself", changes{self("127.0.0.1:40000")}, changes{self("127.0.0.1:39000", "127.0.0.1:40000")}, 1},
		{"the host's orphans, most of them in another namespace", changes{orphans(60, 50)}, changes{orphans(50, 60)}, 1},
		{"a line that moved in its file", changes{file(3, "30")}, changes{file(5, "20")}, 2},
	} {
		before, after := keysOf(Judge(world(tt.before...), DefaultThresholds())), keysOf(Judge(world(tt.after...), DefaultThresholds()))
		if diff := cmp.Diff(before, after); diff != "" || len(before) != tt.n {
			t.Errorf("%s: %d keys, want %d: %s", tt.name, len(before), tt.n, diff)
		}
	}
}

func TestKeyInALine(t *testing.T) {
	for want, k := range map[string]Key{
		"tw-reuse, cookie 7, connector, 10.0.0.1 → 10.0.0.2:80": {
			TWReuse, idOf(7, 9), Subject{tcp.Connector, endpoint("10.0.0.1"), endpoint("10.0.0.2:80")}, "",
		},
		"close-wait-leak, inode 9, acceptor, 10.0.0.2:80 → *, \"a\\x1b[2J\"": {
			CloseWaitLeak, idOf(0, 9), Subject{Role: tcp.Acceptor, Local: endpoint("10.0.0.2:80")}, "a\x1b[2J",
		},
		"resource-pressure, host, \"cpu\"": {Problem: ResourcePressure, Part: "cpu"},
	} {
		if got := k.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
