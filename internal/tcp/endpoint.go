package tcp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Endpoint is one end of a connection or of a group of them. Port 0 means any
// port; an address that is not valid means any address.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

// String writes the endpoint as a person would: 10.0.0.1:80, [::1]:80, *:80 for
// any or a wildcard address, and the address alone where the port is any.
func (e Endpoint) String() string {
	wild := !e.Addr.IsValid() || e.Addr.IsUnspecified()
	switch {
	case wild && e.Port == 0:
		return "*"
	case wild:
		return "*:" + strconv.Itoa(int(e.Port))
	case e.Port == 0:
		return e.Addr.String()
	default:
		return netip.AddrPortFrom(e.Addr, e.Port).String()
	}
}

// MarshalText keeps what String loses: 0.0.0.0 and :: are told from each other
// and from no address at all.
func (e Endpoint) MarshalText() ([]byte, error) {
	if e.Addr.IsValid() && e.Addr.IsUnspecified() {
		if e.Port == 0 {
			return e.Addr.MarshalText()
		}
		return netip.AddrPortFrom(e.Addr, e.Port).MarshalText()
	}
	return []byte(e.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (e *Endpoint) UnmarshalText(text []byte) error {
	parsed, err := ParseEndpoint(string(text))
	if err != nil {
		return err
	}
	*e = parsed
	return nil
}

// ParseEndpoint reads an address, an address and port, or * in place of the
// address.
func ParseEndpoint(text string) (Endpoint, error) {
	if text == "*" {
		return Endpoint{}, nil
	}
	if port, found := strings.CutPrefix(text, "*:"); found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return Endpoint{}, fmt.Errorf("endpoint %q: port is not 0 to 65535", text)
		}
		return Endpoint{Port: uint16(n)}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return Endpoint{Addr: addr}, nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q: want ADDRESS, ADDRESS:PORT or *:PORT", text)
	}
	return Endpoint{Addr: ap.Addr(), Port: ap.Port()}, nil
}

// Role says which end of its connections a group of sockets is.
type Role string

// A connector opened its connections, an acceptor accepted them. RoleUnknown is
// a value of its own: neither could be shown.
const (
	Connector   Role = "connector"
	Acceptor    Role = "acceptor"
	RoleUnknown Role = "unknown"
)

// RoleRule is the rule by which a Role was told.
type RoleRule string

const (
	// ByRemoteListener: the remote endpoint listens in a namespace that was read.
	ByRemoteListener RoleRule = "remote-listener"
	// ByLocalListener: a listener of the same namespace covers the local endpoint.
	ByLocalListener RoleRule = "local-listener"
	// ByFanOut: one side's port is shared by at least eight times as many
	// connections as the other side's.
	ByFanOut RoleRule = "fan-out"
	// ByNoRule: none of the rules held.
	ByNoRule RoleRule = "none"
)
