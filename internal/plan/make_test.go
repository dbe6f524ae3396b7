package plan

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// host is a host with one namespace of a client that has 600 of its 1,000 source ports
// in TIME_WAIT, and listens on ports 15000 and 40500.
func host() *snapshot.Snapshot {
	var closes [snapshot.HistorySeconds]uint32
	for i := range closes {
		closes[i] = 10
	}
	inTimeWait := tcp.States{tcp.TimeWait: 600}
	return &snapshot.Snapshot{
		Host: snapshot.Host{Name: "web1", Kernel: "6.18.0", BootID: "b", Settings: snapshot.Settings{"net.ipv4.tcp_max_orphans": "16384"}},
		Namespaces: []snapshot.Namespace{{
			Cookie: 7, Inode: 77, PID: 99, Own: true, Label: snapshot.Label{Kind: snapshot.LabelHost, Name: "host"},
			Settings: snapshot.Settings{
				setting.LocalPortRange: "40000 40999", setting.LocalReservedPorts: "", setting.TWReuse: "0", setting.Timestamps: "1",
				setting.FinTimeout: "60", setting.MaxTWBuckets: "4096",
			},
			Counters:    snapshot.Counters{Total: map[string]uint64{"TcpActiveOpens": 5, "TcpExtTW": 3}},
			SocketsRead: true, SocketsComplete: true,
			Listeners: []snapshot.Listener{{Local: tcp.Endpoint{Port: 15000}}, {Local: tcp.Endpoint{Port: 40500}}},
			Groups: []snapshot.Group{{
				Role: tcp.Connector, Local: tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")},
				Remote: tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80},
				States: inTimeWait, InRange: inTimeWait, Closes: &snapshot.CloseHistory{PerSecond: closes},
			}},
		}},
	}
}

func planFor(t *testing.T, w Wish) (*Plan, error) {
	t.Helper()
	s := host()
	return Make(s, diagnose.Judge(s, diagnose.DefaultThresholds()), w)
}

func set(key, value string) Wish { return Wish{Set: []remedy.Assignment{{Key: key, Value: value}}} }

// The services that a wider range would give away are reserved first, and what it
// takes in of Kubernetes' is told.
func TestAWiderRange(t *testing.T) {
	p, err := planFor(t, set(setting.LocalPortRange, "10240 65535"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Changes) != 2 || p.Changes[0].Key != setting.LocalReservedPorts || p.Changes[0].New != "15000" ||
		p.Changes[1].Key != setting.LocalPortRange {
		t.Fatalf("changes %+v", p.Changes)
	}
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "NodePorts (30000-32767)") {
		t.Errorf("notes %s", notes)
	}
	// 999 of the range are left by the listener in it, 55,294 by both.
	ports := p.Changes[1].Effects[0]
	if ports.Name != sourcePorts || ports.Before != 999 || ports.After != 55_294 {
		t.Errorf("effect %+v", ports)
	}
	if c := p.Counters; len(c) != 1 || len(c[0].Total) != 1 || c[0].Total["TcpActiveOpens"] != 5 {
		t.Errorf("counters %+v", c)
	}
}

func TestEffectsOfReuse(t *testing.T) {
	p, err := planFor(t, set(setting.TWReuse, "1"))
	if err != nil {
		t.Fatal(err)
	}
	c := p.Changes[0]
	if c.Old != "0" || c.New != "1" || c.Scope.Path != "/proc/99/ns/net" || c.Mechanism == "" || c.Persist == nil {
		t.Errorf("change %+v", c)
	}
	found := map[string]Effect{}
	for _, e := range c.Effects {
		found[strings.Split(e.Name, ",")[0]] = e
	}
	// 600 ports are held for 60 s, and for one second after.
	if used := found[usedPorts]; used.Before != 600 || used.After != 10 {
		t.Errorf("used %+v of %+v", used, c.Effects)
	}
	if rate := found[carried]; rate.Before != 999.0/60 || rate.After != 999 {
		t.Errorf("rate %+v", rate)
	}
	s := host()
	if now := c.Now(&s.Namespaces[0]); now[found[usedPorts].Name] != 600 {
		t.Errorf("now %v", now)
	}
}

func TestAProblemIsPlanned(t *testing.T) {
	p, err := planFor(t, Wish{Problems: []diagnose.Slug{diagnose.TWReuse}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Changes) != 1 || p.Changes[0].Key != setting.TWReuse || len(p.Problems) != 1 || p.Changes[0].Why == "" {
		t.Errorf("plan %+v", p)
	}
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "better than any setting") {
		t.Errorf("the cure in the program is not named: %s", notes)
	}
}

func TestWhatIsRefused(t *testing.T) {
	var refusal *Refusal
	w := set(setting.FinTimeout, "30")
	if _, err := planFor(t, w); !errors.As(err, &refusal) || !refusal.Legal {
		t.Errorf("got %v", err)
	}
	w.Force = true
	p, err := planFor(t, w)
	if err != nil || p.Changes[0].Forced == "" {
		t.Errorf("forced: %+v, %v", p, err)
	}
	w = set(setting.TWRecycle, "1")
	w.Force = true
	if _, err := planFor(t, w); !errors.As(err, &refusal) || refusal.Legal {
		t.Errorf("got %v", err)
	}
	if _, err := planFor(t, set(setting.TWReuseDelay, "1000")); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a key that this kernel lacks: %v", err)
	}
}

func TestNothingToChange(t *testing.T) {
	p, err := planFor(t, set(setting.TWReuse, "0"))
	if err != nil || len(p.Changes) != 0 || !strings.Contains(strings.Join(p.Notes, ""), "is 0 already") {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestOfTheWholeHost(t *testing.T) {
	p, err := planFor(t, set("net.ipv4.tcp_max_orphans", "32768"))
	if err != nil || !p.Changes[0].Scope.HostWide || p.Changes[0].Old != "16384" || p.Changes[0].Scope.Cookie != 7 {
		t.Errorf("%+v, %v", p, err)
	}
}
