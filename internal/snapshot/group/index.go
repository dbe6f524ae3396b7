// Package group sorts the TCP sockets of namespaces into groups, tells the role of each and
// counts the ports that they take. It works on sockets as any source tells them and asks
// nobody: same sockets, same groups.
package group

import (
	"maps"
	"net/netip"
	"slices"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Index answers whether an endpoint listens, in any namespace that was
// read.
type Index struct {
	ports  [1 << 16]bool // on which anyone listens
	byNS   []map[uint16][]listening
	owners map[tcp.Addr][]int // which namespaces have the address
}

type listening struct {
	addr     netip.Addr
	v6only   bool
	position int // in the namespace's Listeners
}

// NewIndex is of the addresses and listeners of namespaces.
func NewIndex(namespaces []*snapshot.Namespace) *Index {
	index := &Index{
		byNS:   make([]map[uint16][]listening, len(namespaces)),
		owners: map[tcp.Addr][]int{},
	}
	for i, ns := range namespaces {
		index.byNS[i] = map[uint16][]listening{}
		for at, l := range ns.Listeners {
			index.ports[l.Local.Port] = true
			index.byNS[i][l.Local.Port] = append(index.byNS[i][l.Local.Port], listening{
				addr: l.Local.Addr, v6only: l.V6Only != nil && *l.V6Only, position: at,
			})
		}
		for _, addr := range ns.Addresses {
			if !addr.IsLoopback() {
				a := tcp.Addr(addr.As16())
				index.owners[a] = append(index.owners[a], i)
			}
		}
	}
	return index
}

// Same tells whether an index of the same namespaces gives the same answers.
func (x *Index) Same(other *Index) bool {
	return maps.EqualFunc(x.owners, other.owners, slices.Equal[[]int]) &&
		slices.EqualFunc(x.byNS, other.byNS, func(a, b map[uint16][]listening) bool {
			return maps.EqualFunc(a, b, slices.Equal[[]listening])
		})
}

// Listens tells whether anybody listens on a port, in any namespace: most sockets are answered
// by it alone.
func (x *Index) Listens(port uint16) bool { return x.ports[port] }

// Covers tells whether a listener of that namespace accepts connections to the
// endpoint.
func (x *Index) Covers(namespace int, addr tcp.Addr, port uint16) bool {
	return len(x.Covering(namespace, addr, port)) > 0
}

// Covering returns the positions of the listeners of that namespace that accept
// connections to the endpoint: those of the very address, else those of all IPv4
// or IPv6, else those of both, as the kernel prefers them (compute_score of
// net/ipv4/inet_hashtables.c). A wildcard IPv6 listener takes IPv4 too unless it is
// v6only (man 7 ipv6).
func (x *Index) Covering(namespace int, addr tcp.Addr, port uint16) (positions []int) {
	to := addr.Netip()
	best := 0
	for _, l := range x.byNS[namespace][port] {
		score := 0
		switch {
		case l.addr == to:
			score = 3
		case !l.addr.IsUnspecified():
		case l.addr.Is4() == to.Is4():
			score = 2
		case l.addr.Is6() && !l.v6only:
			score = 1
		}
		if score > best {
			best, positions = score, nil
		}
		if score > 0 && score == best {
			positions = append(positions, l.position)
		}
	}
	return positions
}

// Remote tells whether an endpoint, as seen from a namespace, listens anywhere.
func (x *Index) Remote(from int, addr tcp.Addr, port uint16) bool {
	return len(x.RemoteNamespaces(from, addr, port)) > 0
}

// RemoteNamespaces are those that have the address and listen on the port. A
// loopback address is the namespace's own. An address that the namespace has
// itself is that one, whoever else has the same.
func (x *Index) RemoteNamespaces(from int, addr tcp.Addr, port uint16) (found []int) {
	candidates := x.owners[addr]
	if addr.Loopback() || slices.Contains(candidates, from) {
		candidates = []int{from}
	}
	for _, i := range candidates {
		if x.Covers(i, addr, port) {
			found = append(found, i)
		}
	}
	return found
}

// Only is the one namespace that has the address, as seen from a namespace.
func (x *Index) Only(from int, addr tcp.Addr) (namespace int, known bool) {
	owners := x.owners[addr]
	if addr.Loopback() || slices.Contains(owners, from) {
		return from, true
	}
	if len(owners) != 1 {
		return 0, false
	}
	return owners[0], true
}
