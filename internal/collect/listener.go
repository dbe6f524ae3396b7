package collect

import (
	"net/netip"
	"slices"

	"linger/internal/kernel/sockdiag"
)

// listenerIndex answers whether an endpoint listens, in any namespace that was
// read.
type listenerIndex struct {
	// ports holds each port on which anyone listens: most sockets are answered by
	// it alone.
	ports  [1 << 16]bool
	byNS   []map[uint16][]listening
	owners map[sockdiag.Addr][]int // which namespaces have the address
}

type listening struct {
	addr     netip.Addr
	v6only   bool
	position int // in the namespace's Listeners
}

func newListenerIndex(namespaces []*namespace) *listenerIndex {
	index := &listenerIndex{
		byNS:   make([]map[uint16][]listening, len(namespaces)),
		owners: map[sockdiag.Addr][]int{},
	}
	for i, ns := range namespaces {
		index.byNS[i] = map[uint16][]listening{}
		for at, l := range ns.facts.Listeners {
			index.ports[l.Local.Port] = true
			index.byNS[i][l.Local.Port] = append(index.byNS[i][l.Local.Port], listening{
				addr: l.Local.Addr, v6only: l.V6Only != nil && *l.V6Only, position: at,
			})
		}
		for _, addr := range ns.facts.Addresses {
			if !addr.IsLoopback() {
				a := sockdiag.Addr(addr.As16())
				index.owners[a] = append(index.owners[a], i)
			}
		}
	}
	return index
}

// covers tells whether a listener of that namespace accepts connections to the
// endpoint.
func (x *listenerIndex) covers(namespace int, addr sockdiag.Addr, port uint16) bool {
	return len(x.covering(namespace, addr, port)) > 0
}

// covering returns the positions of the listeners of that namespace that accept
// connections to the endpoint: those of the very address, else those of all IPv4
// or IPv6, else those of both, as the kernel prefers them (compute_score of
// net/ipv4/inet_hashtables.c). A wildcard IPv6 listener takes IPv4 too unless it is
// v6only (man 7 ipv6).
func (x *listenerIndex) covering(namespace int, addr sockdiag.Addr, port uint16) (positions []int) {
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

// remote tells whether an endpoint, as seen from a namespace, listens anywhere.
func (x *listenerIndex) remote(from int, addr sockdiag.Addr, port uint16) bool {
	return len(x.remoteNamespaces(from, addr, port)) > 0
}

// remoteNamespaces are those that have the address and listen on the port. A
// loopback address is the namespace's own. An address that the namespace has
// itself is that one, whoever else has the same.
func (x *listenerIndex) remoteNamespaces(from int, addr sockdiag.Addr, port uint16) (found []int) {
	candidates := x.owners[addr]
	if addr.Loopback() || slices.Contains(candidates, from) {
		candidates = []int{from}
	}
	for _, i := range candidates {
		if x.covers(i, addr, port) {
			found = append(found, i)
		}
	}
	return found
}

// only is the one namespace that has the address, as seen from a namespace.
func (x *listenerIndex) only(from int, addr sockdiag.Addr) (namespace int, known bool) {
	owners := x.owners[addr]
	if addr.Loopback() || slices.Contains(owners, from) {
		return from, true
	}
	if len(owners) != 1 {
		return 0, false
	}
	return owners[0], true
}
