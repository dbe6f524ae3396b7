package remedy

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"linger/internal/diagnose"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// host is a snapshot with one namespace of that kind; findings on it are written
// down, as remedies are a pure function of both.
func host(kind snapshot.LabelKind) *snapshot.Snapshot {
	return &snapshot.Snapshot{
		Host: snapshot.Host{Settings: snapshot.Settings{}},
		Namespaces: []snapshot.Namespace{{
			Cookie: 5, Inode: 6, PID: 99, Own: kind == snapshot.LabelHost,
			Label: snapshot.Label{Kind: kind, Name: "shop"},
			Settings: snapshot.Settings{
				"net.ipv4.ip_local_port_range":     "32768 60999",
				"net.ipv4.ip_local_reserved_ports": "9100",
				"net.ipv4.tcp_tw_reuse":            "2",
				"net.ipv4.tcp_timestamps":          "1",
				"net.ipv4.tcp_max_tw_buckets":      "131072",
				"net.ipv4.tcp_fin_timeout":         "60",
			},
			SocketsRead: true, SocketsComplete: true,
			Groups: []snapshot.Group{group(tcp.Connector), group(tcp.Acceptor)},
		}},
	}
}

// group has 200 closes in each of the latest 60 seconds.
func group(role tcp.Role) snapshot.Group {
	g := snapshot.Group{Role: role, Local: tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")}, Closes: new(snapshot.CloseHistory)}
	service := tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80}
	if role == tcp.Acceptor {
		g.Local = service
	} else {
		g.Remote = service
	}
	for i := range g.Closes.PerSecond {
		g.Closes.PerSecond[i] = 200
	}
	g.States[tcp.TimeWait] = 12000
	g.InRange = g.States
	return g
}

func finding(s *snapshot.Snapshot, role tcp.Role, ids ...diagnose.RemedyID) diagnose.Finding {
	ns := s.Namespaces[0]
	g := group(role)
	return diagnose.Finding{
		Netns:    diagnose.Netns{Cookie: ns.Cookie, Inode: ns.Inode, Label: ns.Label.String(), PID: ns.PID, Own: ns.Own},
		Subject:  diagnose.Subject{Role: role, Local: g.Local, Remote: g.Remote},
		Remedies: ids,
	}
}

// declared are the remedies that rules may name, each once.
func declared() []diagnose.RemedyID {
	var ids []diagnose.RemedyID
	for _, rule := range diagnose.Rules() {
		for _, id := range rule.Remedies {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func TestEveryRemedyIsConcrete(t *testing.T) {
	ids := declared()
	if len(makers) != len(ids) {
		t.Errorf("%d remedies are known, and the rules declare %d", len(makers), len(ids))
	}
	for _, kind := range []snapshot.LabelKind{
		snapshot.LabelHost, snapshot.LabelPod, snapshot.LabelContainer, snapshot.LabelNamed, snapshot.LabelProcess,
	} {
		for _, role := range []tcp.Role{tcp.Connector, tcp.Acceptor, ""} {
			s := host(kind)
			got := For(finding(s, role, ids...), s)
			if len(got) != len(ids) {
				t.Fatalf("%d of %d remedies", len(got), len(ids))
			}
			for i, r := range got {
				if r.ID != ids[i] {
					t.Errorf("%s in place of %s", r.ID, ids[i])
				}
				if r.Title == "" || r.Kind == "" || r.Frees == "" || r.Risk == "" || r.NotWhen == "" || r.Mechanism == "" || r.Kernels == "" {
					t.Errorf("%s lacks something: %+v", r.ID, r)
				}
				if r.Now == "" && r.Change == "" {
					t.Errorf("%s does not say what to do", r.ID)
				}
				if r.Kind == Setting && r.ID != diagnose.FinTimeoutDefault && r.ID != diagnose.RecycleOff && (r.Now == "" || r.Persist == nil) {
					t.Errorf("%s, a setting, has no command or is not kept: %+v", r.ID, r)
				}
			}
		}
	}
}

// What would do harm, or nothing, must never be said as a thing to do.
var forbidden = []*regexp.Regexp{
	regexp.MustCompile(`tcp_tw_recycle\W+(value\W+)?[1-9]`),
	regexp.MustCompile(`tcp_rfc1337\W+(value\W+)?[1-9]`),
	regexp.MustCompile(`tcp_timestamps\W+0\b`),
	regexp.MustCompile(`tcp_fin_timeout\W+([0-9]|[1-5][0-9]|6[1-9]|[7-9][0-9]|1[01][0-9])\b`),
}

var bucketsValue = regexp.MustCompile(`tcp_max_tw_buckets\W+(\d+)`)

func TestNothingHarmfulIsRecommended(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := []snapshot.LabelKind{snapshot.LabelHost, snapshot.LabelPod, snapshot.LabelContainer, snapshot.LabelNamed}
		s := host(rapid.SampledFrom(kinds).Draw(t, "kind"))
		ns := &s.Namespaces[0]
		limit := rapid.IntRange(0, 1<<24).Draw(t, "buckets")
		low := rapid.IntRange(1, 60000).Draw(t, "low")
		for key, value := range map[string]int{
			"tcp_max_tw_buckets": limit,
			"tcp_fin_timeout":    rapid.IntRange(1, 300).Draw(t, "fin timeout"),
			"tcp_tw_reuse":       rapid.IntRange(0, 2).Draw(t, "reuse"),
			"tcp_timestamps":     rapid.IntRange(0, 2).Draw(t, "timestamps"),
			"tcp_tw_reuse_delay": rapid.IntRange(1, 60000).Draw(t, "delay"),
		} {
			ns.Settings["net.ipv4."+key] = strconv.Itoa(value)
		}
		ns.Settings["net.ipv4.ip_local_port_range"] = fmt.Sprintf("%d %d", low, rapid.IntRange(low, 65535).Draw(t, "high"))
		scale := rapid.IntRange(0, 4).Draw(t, "scale")
		for i := range ns.Groups {
			g := &ns.Groups[i]
			for j := range g.Closes.PerSecond {
				g.Closes.PerSecond[j] *= uint32(scale)
			}
			g.States[tcp.TimeWait] = 12000 * scale
			g.States[tcp.CloseWait] = rapid.IntRange(0, 300).Draw(t, "close wait")
			g.CloseWait = &snapshot.CloseWait{Old: g.States[tcp.CloseWait]}
			g.InRange = g.States
			ns.States.Add(g.States)
		}

		var walk func(f diagnose.Finding)
		walk = func(f diagnose.Finding) {
			remedies := For(f, s)
			if len(remedies) != len(f.Remedies) {
				t.Fatalf("%s names %v, and %d were made", f.Problem, f.Remedies, len(remedies))
			}
			for _, r := range remedies {
				refuse(t, r, limit)
			}
			for _, related := range f.Related {
				walk(related)
			}
		}
		for _, f := range diagnose.Judge(s, diagnose.DefaultThresholds()).Findings {
			walk(f)
		}
		for _, r := range For(finding(s, tcp.Connector, declared()...), s) {
			refuse(t, r, limit)
		}
	})
}

func refuse(t *rapid.T, r Remedy, buckets int) {
	said := []string{r.Now, r.Change}
	for _, e := range r.Examples {
		said = append(said, e.Line)
	}
	if r.Persist != nil {
		said = append(said, r.Persist.Line, r.Persist.Note)
	}
	for _, text := range said {
		for _, pattern := range forbidden {
			if pattern.MatchString(text) {
				t.Fatalf("%s says %q", r.ID, text)
			}
		}
		for _, m := range bucketsValue.FindAllStringSubmatch(text, -1) {
			if n, err := strconv.Atoi(m[1]); err != nil || n <= buckets {
				t.Fatalf("%s lowers tcp_max_tw_buckets from %d: %q", r.ID, buckets, text)
			}
		}
	}
}

func TestForbiddenPatternsCatch(t *testing.T) {
	for _, text := range []string{
		"sysctl -w net.ipv4.tcp_fin_timeout=15", "net.ipv4.tcp_fin_timeout = 61", "net.ipv4.tcp_tw_recycle = 1",
		"net.ipv4.tcp_timestamps = 0", "name: net.ipv4.tcp_rfc1337, value: \"1\"",
	} {
		caught := false
		for _, pattern := range forbidden {
			caught = caught || pattern.MatchString(text)
		}
		if !caught {
			t.Errorf("%q passes", text)
		}
	}
}

func TestPersist(t *testing.T) {
	const key = "net.ipv4.tcp_tw_reuse"
	boot := func(files ...snapshot.BootSetting) []snapshot.BootSetting {
		for i := range files {
			files[i].Key, files[i].Value = key, "0"
		}
		return files
	}
	for _, tt := range []struct {
		name string
		kind snapshot.LabelKind
		boot []snapshot.BootSetting
		want Persist
	}{
		{"host", snapshot.LabelHost, nil, Persist{File: "/etc/sysctl.d/90-local.conf", Line: "net.ipv4.tcp_tw_reuse = 1"}},
		{
			"a file has the last word", snapshot.LabelHost,
			boot(snapshot.BootSetting{File: "/etc/sysctl.d/99-tuning.conf", Line: 4}),
			Persist{
				File: "/etc/sysctl.d/99-tuning.conf", Line: "net.ipv4.tcp_tw_reuse = 1",
				Note: "replaces line 4: /etc/sysctl.d/99-tuning.conf:4 has the last word now (0)",
			},
		},
		{
			"each loader reads another file", snapshot.LabelHost,
			boot(snapshot.BootSetting{File: "/etc/sysctl.d/50-a.conf", Line: 4}, snapshot.BootSetting{File: "/etc/sysctl.conf", Line: 9}),
			Persist{
				File: "/etc/sysctl.d/50-a.conf", Line: "net.ipv4.tcp_tw_reuse = 1",
				Note: "replaces line 4: /etc/sysctl.d/50-a.conf:4 has the last word now (0); /etc/sysctl.conf:9 has the last word now (0)",
			},
		},
		{
			"pod", snapshot.LabelPod, boot(snapshot.BootSetting{File: "/etc/sysctl.conf", Line: 1}),
			Persist{
				File: "the pod's manifest", Line: `spec.securityContext.sysctls: [{name: net.ipv4.tcp_tw_reuse, value: "1"}]`,
				Note: "not among Kubernetes' safe sysctls: the kubelet must allow it (--allowed-unsafe-sysctls)",
			},
		},
		{
			"container", snapshot.LabelContainer, nil,
			Persist{File: "the container's docker run or compose file", Line: "--sysctl net.ipv4.tcp_tw_reuse=1"},
		},
	} {
		s := host(tt.kind)
		s.Host.Boot = tt.boot
		got := For(finding(s, tcp.Connector, diagnose.ReuseOn), s)[0]
		if diff := cmp.Diff(&tt.want, got.Persist); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestCommandsEnterTheNamespace(t *testing.T) {
	s := host(snapshot.LabelContainer)
	got := For(finding(s, tcp.Connector, diagnose.ReuseOn), s)[0].Now
	if want := "nsenter --net=/proc/99/ns/net sysctl -w net.ipv4.tcp_tw_reuse=1"; got != want {
		t.Errorf("now: %s, want %s", got, want)
	}
}

func TestWidenPortRange(t *testing.T) {
	listen := func(ports ...uint16) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			for _, p := range ports {
				s.Namespaces[0].Listeners = append(s.Namespaces[0].Listeners, snapshot.Listener{Local: tcp.Endpoint{Port: p}})
			}
		}
	}
	for _, tt := range []struct {
		name   string
		old    string
		change func(*snapshot.Snapshot)
		now    string
		frees  string
		risk   string
	}{
		{
			"the default", "32768 60999", listen(80, 40000),
			`sysctl -w net.ipv4.ip_local_port_range="10240 65535"`,
			"28,231 ports become 55,295, which carry 922 closes/s for ever in place of 471", "",
		},
		{
			"listeners in what is added are reserved, and named", "32768 60999", listen(80, 11211, 27017, 40000),
			`sysctl -w net.ipv4.ip_local_reserved_ports=9100,11211,27017 && sysctl -w net.ipv4.ip_local_port_range="10240 65535"`,
			"28,231 ports become 55,293, which carry 922 closes/s for ever in place of 471", "11211,27017",
		},
		{
			"already wide", "10240 65535", listen(80, 1025),
			`sysctl -w net.ipv4.ip_local_reserved_ports=1025,9100 && sysctl -w net.ipv4.ip_local_port_range="1024 65535"`,
			"55,296 ports become 64,510, which carry 1,075 closes/s for ever in place of 922", "1025",
		},
		{
			"low already", "1024 60999", listen(80),
			`sysctl -w net.ipv4.ip_local_port_range="1024 65535"`,
			"59,975 ports become 64,511, which carry 1,075 closes/s for ever in place of 1,000", "",
		},
		{
			"node ports of a host with pods", "32768 60999",
			func(s *snapshot.Snapshot) {
				s.Namespaces = append(s.Namespaces, snapshot.Namespace{Cookie: 9, Label: snapshot.Label{Kind: snapshot.LabelPod}})
			},
			`sysctl -w net.ipv4.ip_local_reserved_ports=9100,30000-32767 && sysctl -w net.ipv4.ip_local_port_range="10240 65535"`,
			"28,232 ports become 52,528, which carry 875 closes/s for ever in place of 471", "30000-32767",
		},
	} {
		s := host(snapshot.LabelHost)
		s.Namespaces[0].Settings["net.ipv4.ip_local_port_range"] = tt.old
		tt.change(s)
		got := For(finding(s, tcp.Connector, diagnose.WidenPortRange), s)[0]
		if got.Now != tt.now || got.Frees != tt.frees || !strings.Contains(got.Risk, tt.risk) {
			t.Errorf("%s:\n now   %s\n frees %s\n risk  %s", tt.name, got.Now, got.Frees, got.Risk)
		}
	}
	for _, r := range []tcp.PortRange{wideRange, widestRange} {
		if r.Low%2 == r.High%2 {
			t.Errorf("the ends of %s have the same parity", r)
		}
	}
}

func TestEffectsInNumbers(t *testing.T) {
	s := host(snapshot.LabelHost)
	for _, tt := range []struct {
		id   diagnose.RemedyID
		role tcp.Role
		want string
	}{
		{diagnose.ReuseOn, tcp.Connector, "about 11,800 of 12,000 ports in TIME_WAIT now; 28,232 closes/s for ever in place of 471"},
		{
			diagnose.KeepConnections, tcp.Connector,
			"with 100 requests for each connection, 200 closes/s become 2, and TIME_WAIT settles at 120 in place of 12,000",
		},
		{diagnose.MoreAddresses, tcp.Connector, "28,232 ports, and 471 closes/s for ever, for each address or port that is added"},
		{diagnose.PeerClosesFirst, tcp.Acceptor, "12,000 sockets and 2.9 MiB here"},
		{diagnose.RaiseBuckets, tcp.Acceptor, "room for 131,072 time-wait sockets more"},
	} {
		if got := For(finding(s, tt.role, tt.id), s)[0].Frees; got != tt.want {
			t.Errorf("%s frees %q, want %q", tt.id, got, tt.want)
		}
	}
}

// What stands in the way besides is not promised away: a delay, and connections
// that have no time stamps.
func TestReuseFreesWhatElseAllows(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		id         diagnose.RemedyID
		want       string
	}{
		{setting.TWReuseDelay, "30000", diagnose.ReuseOn, "about 6,000 of 12,000 ports in TIME_WAIT now; 941 closes/s for ever in place of 471"},
		{
			setting.TWReuseDelay, "30000", diagnose.ReuseDelayDefault,
			"about 11,800 of 12,000 ports in TIME_WAIT now; 28,232 closes/s for ever in place of 471",
		},
		{
			"net.ipv4.tcp_timestamps", "0", diagnose.ReuseOn,
			"none of the 12,000 ports in TIME_WAIT now, which have no time stamps; from then on 28,232 closes/s for ever in place of 471",
		},
	} {
		s := host(snapshot.LabelHost)
		s.Namespaces[0].Settings[tt.key] = tt.value
		if got := For(finding(s, tcp.Connector, tt.id), s)[0].Frees; got != tt.want {
			t.Errorf("%s with %s=%s frees %q, want %q", tt.id, tt.key, tt.value, got, tt.want)
		}
	}
}

func TestBucketsAreRaisedToWhatIsDropped(t *testing.T) {
	s := host(snapshot.LabelHost)
	ns := &s.Namespaces[0]
	ns.Groups, ns.Settings["net.ipv4.tcp_max_tw_buckets"] = nil, "800"
	s.WindowMS = 500
	ns.Counters = snapshot.NewCounters(
		map[string]uint64{"TcpExtTW": 10, "TcpExtTCPTimeWaitOverflow": 0},
		map[string]uint64{"TcpExtTW": 20, "TcpExtTCPTimeWaitOverflow": 190},
	)
	// 200 in half a second settle at 24,000.
	got := For(finding(s, "", diagnose.RaiseBuckets), s)[0].Now
	if want := "sysctl -w net.ipv4.tcp_max_tw_buckets=65536"; got != want {
		t.Errorf("now: %s, want %s", got, want)
	}
}

func TestExamplesFitTheProcess(t *testing.T) {
	if got := examplesFor("nginx", keepAliveServers); len(got) != 1 || got[0].Program != "nginx" {
		t.Errorf("for nginx: %v", got)
	}
	if got := examplesFor("shopd", poolingClients); len(got) != generic {
		t.Errorf("for an unknown program: %v", got)
	}
}

func TestFinTimeoutOfAFile(t *testing.T) {
	s := host(snapshot.LabelHost)
	s.Host.Boot = []snapshot.BootSetting{{Key: "net.ipv4.tcp_fin_timeout", Value: "15", File: "/etc/sysctl.conf", Line: 3}}
	for _, f := range diagnose.Judge(s, diagnose.DefaultThresholds()).Findings {
		if f.Problem != diagnose.FinTimeout {
			continue
		}
		r := For(f, s)[0]
		if r.Now != "" || r.Persist == nil || r.Persist.File != "/etc/sysctl.conf" || r.Persist.Line != "net.ipv4.tcp_fin_timeout = 60" {
			t.Errorf("a file that sets it is cured by %+v, %+v", r, r.Persist)
		}
		return
	}
	t.Error("the file was not found")
}

// The command restarts the service that runs a process, and never a login session or
// all services of a user. ps and systemctl are stood in for: no test may restart one.
func TestOnlyAServiceIsRestarted(t *testing.T) {
	s := host(snapshot.LabelHost)
	f := finding(s, tcp.Connector, diagnose.RestartProcess)
	f.Owners = []snapshot.Owner{{Process: "api", PID: 42}}
	command := For(f, s)[0].Now
	for unit, want := range map[string]string{
		"shop.service": "restart shop.service", "session-3.scope": "restart ", "user@1000.service": "restart ",
	} {
		script := "ps() { echo " + unit + "; }; systemctl() { echo \"$@\"; }; " + command
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if got := strings.TrimRight(string(out), "\n"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", unit, got, err, want)
		}
	}
}
