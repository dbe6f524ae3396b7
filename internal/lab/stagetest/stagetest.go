// Package stagetest gives tests a stage: a namespace of their own, for as long as they
// run, and what the kernel itself says of the sockets in it.
package stagetest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"linger/internal/lab/stage"
	"linger/internal/tcp"
)

// limit bounds a test's whole work on the kernel.
const limit = 3 * time.Minute

// Context ends with the test, and after three minutes.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// NeedRoot skips the test if the error is that it lacks a right, and fails it at any other.
func NeedRoot(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Closing closes what stands at the end of the test.
func Closing(t testing.TB, stands interface{ Close() error }) {
	t.Cleanup(func() {
		if err := stands.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// Loopback is a node that stands alone until the test ends.
func Loopback(t testing.TB) *stage.Node {
	t.Helper()
	topology, err := stage.NewLoopback("alone")
	NeedRoot(t, err)
	Closing(t, topology)
	return topology.Nodes[0]
}

// Family is the name of an address family.
func Family(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Row is one line of /proc/net/tcp or tcp6 (Documentation/networking/proc_net_tcp.rst):
// what the kernel says by a way that the program under test does not take.
type Row struct {
	Local, Remote netip.AddrPort
	State         tcp.State
}

// Rows are those of a node.
func Rows(t testing.TB, n *stage.Node) (all []Row) {
	t.Helper()
	err := n.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				if i == 0 {
					continue
				}
				r, err := parseRow(strings.Fields(line))
				if err != nil {
					return fmt.Errorf("%s line %d: %w", name, i+1, err)
				}
				all = append(all, r)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parseRow(fields []string) (Row, error) {
	if len(fields) < 4 {
		return Row{}, fmt.Errorf("%d fields", len(fields))
	}
	local, err := parseAddrPort(fields[1])
	if err != nil {
		return Row{}, err
	}
	remote, err := parseAddrPort(fields[2])
	if err != nil {
		return Row{}, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	return Row{local, remote, tcp.State(state)}, err
}

// parseAddrPort reads an address printed as 32-bit words in the byte order of the
// machine.
func parseAddrPort(text string) (netip.AddrPort, error) {
	addr, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(addr)
	if err != nil || !ok || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("endpoint %q", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("endpoint %q", text)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), err
}

// Count counts the rows of a state towards a remote endpoint, or of a local one.
func Count(rows []Row, state tcp.State, local, remote tcp.Endpoint) int {
	match := func(e tcp.Endpoint, ap netip.AddrPort) bool {
		return (!e.Addr.IsValid() || e.Addr == ap.Addr()) && (e.Port == 0 || e.Port == ap.Port())
	}
	n := 0
	for _, r := range rows {
		if r.State == state && match(local, r.Local) && match(remote, r.Remote) {
			n++
		}
	}
	return n
}
