package lab_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"linger/internal/lab"
	"linger/internal/tcp"
)

// row is one line of /proc/net/tcp or tcp6 (Documentation/networking/proc_net_tcp.rst):
// what the kernel says by a way that the program under test does not take.
type row struct {
	local, remote netip.AddrPort
	state         tcp.State
}

func rows(n *lab.Node) ([]row, error) {
	var all []row
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
	return all, err
}

func parseRow(fields []string) (row, error) {
	if len(fields) < 4 {
		return row{}, fmt.Errorf("%d fields", len(fields))
	}
	local, err := parseAddrPort(fields[1])
	if err != nil {
		return row{}, err
	}
	remote, err := parseAddrPort(fields[2])
	if err != nil {
		return row{}, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	return row{local, remote, tcp.State(state)}, err
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

// count counts the rows of a state towards a remote endpoint, or of a local one.
func count(rows []row, state tcp.State, local, remote tcp.Endpoint) int {
	match := func(e tcp.Endpoint, ap netip.AddrPort) bool {
		return (!e.Addr.IsValid() || e.Addr == ap.Addr()) && (e.Port == 0 || e.Port == ap.Port())
	}
	n := 0
	for _, r := range rows {
		if r.state == state && match(local, r.local) && match(remote, r.remote) {
			n++
		}
	}
	return n
}
