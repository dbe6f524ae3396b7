package sysctl

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"linger/internal/kernel/netns/netnstest"

	"golang.org/x/sys/unix"
)

func TestWriteChangesOnlyTheNamespaceOfTheThread(t *testing.T) {
	const key = "net.ipv4.tcp_fin_timeout"
	before, err := Read(key)
	if err != nil {
		t.Fatal(err)
	}
	netnstest.Do(t, netnstest.New(t), func() {
		if err := Write(key, "42"); err != nil {
			t.Error(err)
		}
		if got, err := Read(key); got != "42" || err != nil {
			t.Errorf("in the namespace %s is %q, %v; want 42", key, got, err)
		}
	})
	if after, err := Read(key); after != before || err != nil {
		t.Errorf("outside of it %s went from %q to %q, %v", key, before, after, err)
	}
}

func TestReadTrimsAndJoinsByOneSpace(t *testing.T) {
	netnstest.Do(t, netnstest.New(t), func() {
		if err := Write("net.ipv4.ip_local_port_range", "20000 20099"); err != nil {
			t.Error(err)
		}
		if got, err := Read("net.ipv4.ip_local_port_range"); got != "20000 20099" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got, err := Read("net.ipv4.ip_local_reserved_ports"); got != "" || err != nil {
			t.Errorf("no reserved ports read as %q, %v", got, err)
		}
	})
}

func TestReadLongValue(t *testing.T) {
	netnstest.Do(t, netnstest.New(t), func() {
		var ports []string
		for port := 20001; port < 24000; port += 2 {
			ports = append(ports, strconv.Itoa(port))
		}
		want := strings.Join(ports, ",")
		if err := Write("net.ipv4.ip_local_reserved_ports", want); err != nil {
			t.Error(err)
		}
		if got, err := Read("net.ipv4.ip_local_reserved_ports"); got != want || err != nil {
			t.Errorf("%d bytes were read as %d, %v", len(want), len(got), err)
		}
	})
}

func TestKeysAreKeptWhereTheListsSay(t *testing.T) {
	host, err := ReadAll(append(append([]string{}, PerNamespace...), HostWide...))
	if err != nil {
		t.Fatal(err)
	}
	if host["net.ipv4.tcp_fin_timeout"] == "" || host["fs.file-max"] == "" {
		t.Errorf("the host lacks keys that every kernel has: %v", host)
	}
	netnstest.Do(t, netnstest.New(t), func() {
		child, err := ReadAll(PerNamespace)
		if err != nil {
			t.Error(err)
		}
		for _, key := range PerNamespace {
			if _, have := host[key]; !have {
				continue // another kernel's key
			}
			if _, have := child[key]; !have {
				t.Errorf("%s is said to be per namespace, and a new namespace has none", key)
			}
		}
		for _, key := range HostWide {
			value, have := host[key]
			if !have || !strings.HasPrefix(key, "net.") {
				continue
			}
			err := Write(key, value)
			if !errors.Is(err, ErrAbsent) && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s is said to be of the whole host, and a new namespace may write it: %v", key, err)
			}
		}
	})
}

func TestErrors(t *testing.T) {
	if _, err := Read("net.ipv4.tcp_no_such_key"); !errors.Is(err, ErrAbsent) {
		t.Errorf("a key that is not there: %v", err)
	}
	for _, key := range []string{"", ".", "net..ipv4", "net/../../etc/passwd", "/etc/passwd", "net.ipv4.", "net.ipv4.tcp_mem/../x"} {
		if _, err := Read(key); err == nil {
			t.Errorf("%q was read", key)
		}
		if err := Write(key, "0"); err == nil {
			t.Errorf("%q was written", key)
		}
	}
	netnstest.Do(t, netnstest.New(t), func() {
		if err := Write("net.ipv4.tcp_fin_timeout", "soon"); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a value that is no number: %v", err)
		}
		if err := Write("net.ipv4.tcp_no_such_key", "1"); !errors.Is(err, ErrAbsent) {
			t.Errorf("writing a key that is not there: %v", err)
		}
	})
}

func TestSlashed(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.tcp_mem":                "net/ipv4/tcp_mem",
		"net/ipv4/tcp_mem":                "net/ipv4/tcp_mem",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"hostname":                        "hostname",
	} {
		if got := slashed(key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

func BenchmarkReadAll(b *testing.B) {
	for b.Loop() {
		if _, err := ReadAll(PerNamespace); err != nil {
			b.Fatal(err)
		}
	}
}
