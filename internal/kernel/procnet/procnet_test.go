package procnet

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"linger/internal/kernel/netns/netnstest"

	"github.com/google/go-cmp/cmp"
)

// closeFirst makes connections on a loopback address whose client closes first, so
// that one TIME_WAIT for each is left.
func closeFirst(t *testing.T, network, address string, connections int) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Error(err)
		return
	}
	defer listener.Close()
	for range connections {
		client, err := net.Dial(network, listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		server, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		client.Close()
		server.Read(make([]byte, 1)) // until the client's FIN
		server.Close()
	}
}

func TestCountersAreThoseOfTheThreadsNamespace(t *testing.T) {
	outside, err := ReadCounters()
	if err != nil {
		t.Fatal(err)
	}
	if _, known := outside["TcpExtTW"]; !known {
		t.Error("no TcpExtTW")
	}
	for name := range outside {
		if !strings.HasPrefix(name, "Tcp") {
			t.Errorf("%s is no TCP counter", name)
		}
	}
	h := netnstest.New(t)
	netnstest.KeepTimeWait(t, h)
	netnstest.Do(t, h, func() {
		const each = 7
		closeFirst(t, "tcp4", "127.0.0.1:0", each)
		closeFirst(t, "tcp6", "[::1]:0", each)

		var counters map[string]uint64
		var s Sockstat
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var err error
			if counters, err = ReadCounters(); err != nil {
				t.Error(err)
			}
			if s, err = ReadSockstat(); err != nil {
				t.Error(err)
			}
			if counters["TcpExtTW"] == 2*each || time.Now().After(deadline) {
				break
			}
		}
		if counters["TcpExtTW"] != 2*each || counters["TcpActiveOpens"] != 2*each || counters["TcpPassiveOpens"] != 2*each {
			t.Errorf("after %d connections TcpExtTW %d, TcpActiveOpens %d, TcpPassiveOpens %d", 2*each,
				counters["TcpExtTW"], counters["TcpActiveOpens"], counters["TcpPassiveOpens"])
		}
		if _, known := counters["TcpMaxConn"]; known {
			t.Error("TcpMaxConn is -1 and was taken for a count")
		}
		if s.TimeWait == nil || *s.TimeWait != 2*each {
			t.Errorf("sockstat counts %v time-wait sockets", text(s.TimeWait))
		}
		if s.InUse4 == nil || s.InUse6 == nil || *s.InUse4 != 0 || *s.InUse6 != 0 {
			t.Errorf("sockets in use: IPv4 %v, IPv6 %v; want 0", text(s.InUse4), text(s.InUse6))
		}
		if s.Orphans == nil || s.Allocated == nil || s.MemoryPages == nil {
			t.Error("the host-wide part of sockstat is missing")
		}
	})
}

func TestSocketsInUse(t *testing.T) {
	netnstest.Do(t, netnstest.New(t), func() {
		four, err4 := net.Listen("tcp4", "127.0.0.1:0")
		six, err6 := net.Listen("tcp6", "[::1]:0")
		if err4 != nil || err6 != nil {
			t.Error(err4, err6)
			return
		}
		defer four.Close()
		defer six.Close()
		s, err := ReadSockstat()
		if err != nil {
			t.Error(err)
		}
		if s.InUse4 == nil || s.InUse6 == nil || *s.InUse4 != 1 || *s.InUse6 != 1 {
			t.Errorf("one listener each, and in use are IPv4 %v, IPv6 %v", text(s.InUse4), text(s.InUse6))
		}
	})
}

func text(n *int64) any {
	if n == nil {
		return "unknown"
	}
	return *n
}

// nstat(8) of iproute2 reads the same files.
func TestNamesAreThoseOfNstat(t *testing.T) {
	nstat, err := exec.LookPath("nstat")
	if err != nil {
		t.Skip("needs nstat of iproute2")
	}
	command := exec.Command(nstat, "-a", "-s", "-z", "-j")
	command.Env = append(os.Environ(), "NSTAT_HISTORY="+filepath.Join(t.TempDir(), "history"))
	out, err := command.Output()
	if err != nil {
		t.Skipf("nstat -asz -j: %v", err)
	}
	var kernel struct {
		Counters map[string]json.Number `json:"kernel"`
	}
	if err := json.Unmarshal(out, &kernel); err != nil {
		t.Fatal(err)
	}
	ours, err := ReadCounters()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for name := range kernel.Counters {
		if !strings.HasPrefix(name, "Tcp") || name == "TcpRtoAlgorithm" || name == "TcpRtoMin" || name == "TcpRtoMax" || name == "TcpMaxConn" {
			continue
		}
		compared++
		if _, known := ours[name]; !known {
			t.Errorf("nstat knows %s", name)
		}
	}
	if compared < 50 {
		t.Errorf("nstat named only %d TCP counters", compared)
	}
}

func TestParseCounters(t *testing.T) {
	for name, c := range map[string]struct {
		files   []string
		want    map[string]uint64
		failure string
	}{
		"nothing": {want: map[string]uint64{}},
		"both files, the TCP lines only": {
			files: []string{
				"TcpExt: SyncookiesSent TW\nTcpExt: 1 22\nIpExt: InOctets\nIpExt: 5\n",
				"Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin MaxConn OutRsts\nTcp: 200 -1 7\nUdp: InDatagrams\nUdp: 3\n",
			},
			want: map[string]uint64{"TcpExtSyncookiesSent": 1, "TcpExtTW": 22, "TcpRtoMin": 200, "TcpOutRsts": 7},
		},
		"the largest value, and no end of line": {
			files: []string{"TcpExt: TW\nTcpExt: 18446744073709551615"},
			want:  map[string]uint64{"TcpExtTW": 1<<64 - 1},
		},
		"more names than values": {
			files:   []string{"TcpExt: TW TWRecycled\nTcpExt: 1\n"},
			want:    map[string]uint64{"TcpExtTW": 1},
			failure: "not as many values as names",
		},
		"more values than names": {
			files:   []string{"TcpExt: TW\nTcpExt: 1 2\n"},
			want:    map[string]uint64{"TcpExtTW": 1},
			failure: "not as many values as names",
		},
		"names alone, and the other file whole": {
			files:   []string{"TcpExt: TW\n", "Tcp: OutRsts\nTcp: 1\n"},
			want:    map[string]uint64{"TcpOutRsts": 1},
			failure: "without values",
		},
		"no number": {
			files:   []string{"TcpExt: TW\nTcpExt: many\n"},
			want:    map[string]uint64{},
			failure: "TcpExtTW",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var files [][]byte
			for _, file := range c.files {
				files = append(files, []byte(file))
			}
			got, err := ParseCounters(files...)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			expectFailure(t, err, c.failure)
		})
	}
}

func TestParseSockstat(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		four, six string
		want      Sockstat
		failure   string
	}{
		"nothing": {},
		"a whole one": {
			four: "sockets: used 13\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 5\nUDP: inuse 9 mem 9\n",
			six:  "TCP6: inuse 6\nUDP6: inuse 9\n",
			want: Sockstat{number(1), number(6), number(3), number(2), number(4), number(5)},
		},
		"fewer fields and unknown ones": {
			four: "TCP: inuse 1 later 2 tw 3\n",
			want: Sockstat{InUse4: number(1), TimeWait: number(3)},
		},
		"a key without its value": {
			four:    "TCP: inuse 1 tw",
			want:    Sockstat{InUse4: number(1)},
			failure: "TCP tw",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSockstat([]byte(c.four), []byte(c.six))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			expectFailure(t, err, c.failure)
		})
	}
}

func expectFailure(t *testing.T, err error, part string) {
	t.Helper()
	switch {
	case part == "" && err != nil:
		t.Error(err)
	case part != "" && (err == nil || !strings.Contains(err.Error(), part)):
		t.Errorf("the error is %v, and should say %q", err, part)
	}
}

func TestSoftnet(t *testing.T) {
	got, err := ParseSoftnet([]byte("0000000a 00000001 00000002 00000000 ff\n00000010 00000000 ffffffff 00000000\n"))
	want := map[string]uint64{"processed": 26, "dropped": 1, "time_squeeze": 2 + 1<<32 - 1}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, want -, got +\n%s", err, diff)
	}
	for _, broken := range []string{"", "\n", "0000000a 00000001\n", "0000000a xyz 0\n"} {
		if got, err := ParseSoftnet([]byte(broken)); err == nil {
			t.Errorf("%q gave %v", broken, got)
		}
	}
	host, err := ReadSoftnet("/proc")
	if err != nil || len(host) != 3 || host["processed"] == 0 {
		t.Errorf("the host has processed %v, %v", host, err)
	}
}

func FuzzParseCounters(f *testing.F) {
	for _, file := range []string{"netstat", "snmp"} {
		if text, err := os.ReadFile("/proc" + threadNet + file); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("TcpExt: TW TWRecycled\nTcpExt: 1\nTcp:\nTcp"))
	f.Fuzz(func(t *testing.T, text []byte) {
		counters, _ := ParseCounters(text)
		for name := range counters {
			if rest, ok := strings.CutPrefix(name, "Tcp"); !ok || rest == "" {
				t.Errorf("counter %q", name)
			}
		}
	})
}

func FuzzParseSockstat(f *testing.F) {
	f.Add([]byte("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 336\n"), []byte("TCP6: inuse 0\n"))
	f.Add([]byte("TCP: inuse -1 tw"), []byte("TCP6:"))
	f.Fuzz(func(t *testing.T, four, six []byte) {
		s, err := ParseSockstat(four, six)
		if err == nil && s.InUse6 != nil && !strings.Contains(string(six), "TCP6") {
			t.Errorf("%q gave IPv6 sockets", six)
		}
	})
}

func FuzzParseSoftnet(f *testing.F) {
	f.Add([]byte("00000015 00000000 00000000 00000000\n0000089c 00000000 00000001\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if sums, err := ParseSoftnet(text); err == nil && len(sums) != 3 {
			t.Errorf("%q gave %v", text, sums)
		}
	})
}

func BenchmarkReadCounters(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadCounters(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadSockstat(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadSockstat(); err != nil {
			b.Fatal(err)
		}
	}
}
