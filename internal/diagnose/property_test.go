package diagnose

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// drawSnapshot draws a host that may lack any fact, and whose numbers need not fit
// together: a capture may come from anywhere.
func drawSnapshot(t *rapid.T) *snapshot.Snapshot {
	s := world()
	s.WindowMS = rapid.Int64Range(0, 2000).Draw(t, "window")
	base := s.Namespaces[0]
	s.Namespaces = nil
	for i := range rapid.IntRange(0, 3).Draw(t, "namespaces") {
		ns := base
		ns.Cookie = rapid.Uint64Range(0, 3).Draw(t, "cookie")
		ns.Own = i == 0
		ns.Settings = drawSettings(t)
		ns.SocketsRead = rapid.Bool().Draw(t, "read")
		ns.SocketsComplete = rapid.Bool().Draw(t, "complete")
		if rapid.Bool().Draw(t, "sockstat") {
			ns.Sockstat = &snapshot.Sockstat{TimeWait: rapid.Int64Range(0, 200000).Draw(t, "tw")}
		} else {
			ns.Sockstat = nil
		}
		if rapid.Bool().Draw(t, "one reading") {
			ns.Counters = snapshot.NewCounters(counters(rapid.Uint64Range(0, 3).Draw(t, "overflow")), nil)
		}
		for range rapid.IntRange(0, 4).Draw(t, "groups") {
			g := drawGroup(t)
			ns.Groups = append(ns.Groups, g)
			ns.States.Add(g.States)
		}
		if rapid.Bool().Draw(t, "folded") {
			ns.Other = &snapshot.Other{Groups: 3, States: drawStates(t)}
		}
		s.Namespaces = append(s.Namespaces, ns)
	}
	return s
}

func drawSettings(t *rapid.T) snapshot.Settings {
	out := snapshot.Settings{}
	for _, known := range []struct {
		key    string
		values []string
	}{
		{keyRange, []string{"32768 60999", "40000 40099", "1024 65535", "", "x"}},
		{keyReserved, []string{"", "40000-40099", "1-65535", "x"}},
		{keyReuse, []string{"0", "1", "2", "x"}},
		{keyTimestamps, []string{"0", "1"}},
		{keyReuseDelay, []string{"1", "1000", "60000", "0", "-5"}},
		{keyBuckets, []string{"0", "1", "4096", "131072", "-1"}},
		{keyFinTimeout, []string{"1", "60", "61", "180", "x"}},
	} {
		if rapid.Bool().Draw(t, "have "+known.key) {
			out[known.key] = rapid.SampledFrom(known.values).Draw(t, known.key)
		}
	}
	return out
}

func drawStates(t *rapid.T) (states tcp.States) {
	for _, state := range []tcp.State{tcp.Established, tcp.TimeWait, tcp.FinWait2TimeWait, tcp.CloseWait} {
		states[state] = rapid.IntRange(0, 40000).Draw(t, state.String())
	}
	return states
}

func drawGroup(t *rapid.T) snapshot.Group {
	g := snapshot.Group{
		Role:   rapid.SampledFrom([]tcp.Role{tcp.Connector, tcp.Acceptor, tcp.RoleUnknown}).Draw(t, "role"),
		Rule:   tcp.ByFanOut,
		States: drawStates(t),
	}
	near := rapid.SampledFrom([]string{"10.0.0.1", "127.0.0.1", "fd00::1"}).Draw(t, "near")
	g.Local, g.Remote = endpoint(near), endpoint("10.0.0.2:80")
	if g.Role == tcp.Acceptor {
		g.Local, g.Remote = tcp.Endpoint{Addr: addr(near), Port: 80}, tcp.Endpoint{}
	}
	if rapid.Bool().Draw(t, "in range") {
		g.InRange = g.States
	}
	if rapid.Bool().Draw(t, "history") {
		g.Closes = steady(g.States[tcp.TimeWait], rapid.IntRange(1, 60).Draw(t, "seconds"))
	}
	if rapid.Bool().Draw(t, "second look") {
		g.CloseWait = &snapshot.CloseWait{Old: rapid.IntRange(0, 300).Draw(t, "old"), Owners: []snapshot.Owner{curl}}
	}
	if rapid.Bool().Draw(t, "peer") {
		g.Peer = &snapshot.Peer{Cookie: rapid.Uint64Range(0, 3).Draw(t, "peer's cookie")}
	}
	return g
}

func TestJudgeWhateverTheSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		before, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		d := Judge(s, DefaultThresholds())

		told, err := json.Marshal(d)
		if err != nil { // infinities and NaN have no JSON form
			t.Fatal(err)
		}
		if after, _ := json.Marshal(s); string(after) != string(before) {
			t.Fatal("the snapshot was changed")
		}
		if again, _ := json.Marshal(Judge(s, DefaultThresholds())); string(again) != string(told) {
			t.Fatalf("judged twice:\n%s\n%s", told, again)
		}
		found := map[Slug]bool{}
		rank := 0
		for _, f := range d.Findings {
			if f.Severity.rank() < rank {
				t.Fatalf("%s %s comes after a milder one", f.Severity, f.Problem)
			}
			rank = f.Severity.rank()
			found[f.Problem] = true
			for _, r := range f.Related {
				found[r.Problem] = true
				if r.Severity.rank() < rank {
					t.Fatalf("%s %s is folded under a %s %s", r.Severity, r.Problem, f.Severity, f.Problem)
				}
			}
		}
		for _, h := range d.Absent {
			if found[h.Problem] {
				t.Fatalf("%s was found, and is said to be absent", h.Problem)
			}
		}
	})
}
