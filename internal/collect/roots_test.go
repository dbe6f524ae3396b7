package collect

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// A tree stands in for the host: nothing is read of the host's own files.
func TestRootsStandInForAHost(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"proc/thread-self/net/netstat":      "TcpExt: TW TWRecycled\nTcpExt: 41 1\n",
		"proc/thread-self/net/snmp":         "Tcp: ActiveOpens MaxConn\nTcp: 42 -1\n",
		"proc/thread-self/net/sockstat":     "TCP: inuse 0 orphan 43 tw 0 alloc 1 mem 44\n",
		"proc/thread-self/net/sockstat6":    "TCP6: inuse 0\n",
		"proc/thread-self/net/softnet_stat": "0000002d 00000000 00000000\n",
		"proc/sys/net/ipv4/tcp_fin_timeout": "46\n",
		"proc/sys/net/ipv4/tcp_max_orphans": "47\n",
		"proc/sys/kernel/random/boot_id":    "a-boot\n",
		"proc/sys/kernel/osrelease":         "6.1\n",
		"proc/meminfo":                      "MemTotal: 48 kB\nMemAvailable: 12 kB\n",
		"proc/loadavg":                      "0.49 0 0 1/1 1\n",
		"disk/etc/sysctl.d/10.conf":         "net.ipv4.tcp_fin_timeout = 50\n",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), Options{
		Netns: []string{"/proc/" + strconv.Itoa(os.Getpid()) + "/ns/net"},
		Roots: Roots{Proc: root + "/proc", Run: root + "/run", Disk: root + "/disk"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, ns := out.Host, out.Namespaces[0]
	for what, got := range map[string]bool{
		"counters":      ns.Counters.Total["TcpExtTW"] == 41 && ns.Counters.Total["TcpActiveOpens"] == 42 && len(ns.Counters.Total) == 3,
		"sockstat":      h.Orphans != nil && *h.Orphans == 43 && *h.TCPMemoryPages == 44,
		"softnet":       h.Softnet.Total["processed"] == 45,
		"settings":      ns.Settings["net.ipv4.tcp_fin_timeout"] == "46" && len(ns.Settings) == 1,
		"host settings": h.Settings["net.ipv4.tcp_max_orphans"] == "47" && len(h.Settings) == 1,
		"memory":        h.Memory != nil && h.Memory.Total == 48<<10,
		"load":          h.Load != nil && h.Load.One == 0.49,
		"boot id":       h.BootID == "a-boot",
		"boot settings": len(h.Boot) == 1 && h.Boot[0].Value == "50",
		"conntrack":     ns.Conntrack == nil,
	} {
		if !got {
			t.Errorf("%s are not those of the tree: %+v, %+v", what, h, ns.Settings)
		}
	}
}

// Where few files may be open, a session holds none but the namespaces themselves and the
// sockets' connections, and reads the same.
func TestFewFilesMayBeOpen(t *testing.T) {
	h := newHost(t, 10)
	before := descriptors(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = uint64(before + 2*len(h.paths) + filesOfDoor + 30)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	s := h.open(Options{})
	if s.keepFiles {
		t.Fatalf("%d namespaces keep their files open where %d may be", len(h.paths), low.Cur)
	}
	for range 2 {
		out := h.read(s)
		for _, ns := range out.Namespaces {
			if ns.States[tcp.Established] != 2 || ns.Counters.Total["TcpActiveOpens"] != 1 || len(ns.Settings) == 0 {
				t.Errorf("namespace %d: %v, %d opens", ns.Inode, ns.States, ns.Counters.Total["TcpActiveOpens"])
			}
		}
		if now := descriptors(t); now > before+2*len(h.paths) {
			t.Errorf("%d descriptors more for %d namespaces", now-before, len(h.paths))
		}
	}
}
