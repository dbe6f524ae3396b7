package tcp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Match chooses endpoints: those whose address lies in a prefix, and whose port is a
// certain one. The zero Match chooses all.
type Match struct {
	Prefix netip.Prefix // not valid: any address
	Port   uint16       // 0: any port
}

// ParseMatch reads an address, a prefix (10.0.0.0/8), an address and port
// (10.0.0.1:443, [::1]:443), *:PORT or *. IPv4 addresses written as IPv6
// (::ffff:10.0.0.1) are IPv4: a connection between them is the same over a socket of
// either family.
func ParseMatch(text string) (Match, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return Match{}, fmt.Errorf("%q is no prefix such as 10.0.0.0/8 or 2001:db8::/32", text)
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		return Match{Prefix: prefix.Masked()}, nil
	}
	e, err := ParseEndpoint(text)
	if err != nil {
		return Match{}, fmt.Errorf("%q is no ADDRESS, PREFIX, ADDRESS:PORT, [IPV6]:PORT or *:PORT", text)
	}
	if e.Addr.Zone() != "" {
		return Match{}, fmt.Errorf("%q has a zone, which sockets are not told apart by: leave out %%%s", text, e.Addr.Zone())
	}
	if e.Port == 0 && text != "*" && !isAddress(text) {
		return Match{}, fmt.Errorf("%q has port 0, which no connection has", text)
	}
	m := Match{Port: e.Port}
	if e.Addr.IsValid() {
		addr := e.Addr.Unmap()
		m.Prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	return m, nil
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// Chooses tells whether the Match chooses an endpoint. An address that is not valid
// lies in no prefix, port 0 is no certain port.
func (m Match) Chooses(e Endpoint) bool {
	return (m.Port == 0 || m.Port == e.Port) && (!m.Prefix.IsValid() || m.Prefix.Contains(e.Addr.Unmap()))
}

// String writes the Match in a form that ParseMatch reads.
func (m Match) String() string {
	switch {
	case !m.Prefix.IsValid() && m.Port == 0:
		return "*"
	case !m.Prefix.IsValid():
		return "*:" + strconv.Itoa(int(m.Port))
	case m.Port != 0:
		return netip.AddrPortFrom(m.Prefix.Addr(), m.Port).String()
	case m.Prefix.IsSingleIP():
		return m.Prefix.Addr().String()
	default:
		return m.Prefix.String()
	}
}

// AnyChooses tells whether one of the matches chooses the endpoint; none at all
// choose every one.
func AnyChooses(matches []Match, e Endpoint) bool {
	for _, m := range matches {
		if m.Chooses(e) {
			return true
		}
	}
	return len(matches) == 0
}

// StatesNamed reads the name of a state as the kernel, ss or netstat writes it:
// TIME_WAIT, time-wait, FIN-WAIT-2, ESTAB. FIN_WAIT2 is also the time-wait sockets that
// stand in for it.
func StatesNamed(text string) ([]State, error) {
	plain := func(name string) string {
		return strings.NewReplacer("_", "", "-", "").Replace(strings.ToUpper(name))
	}
	name := plain(text)
	if name == "ESTAB" {
		name = "ESTABLISHED"
	}
	for s := State(1); s < NumStates; s++ {
		if plain(s.String()) != name {
			continue
		}
		if s == FinWait2 {
			return []State{FinWait2, FinWait2TimeWait}, nil
		}
		return []State{s}, nil
	}
	return nil, fmt.Errorf("unknown state %q", text)
}
