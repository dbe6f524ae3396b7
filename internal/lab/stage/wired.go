package stage

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"linger/internal/lab/wire"
)

// Wiring says how what is joined by wires is built.
type Wiring struct {
	IPv6 bool
	// Tap gives the file that a wire writes its packets to, by the names of its ends; nil
	// for none.
	Tap func(left, right string) (io.Writer, error)
}

// options are those of one of its wires.
func (w Wiring) options(left, right string) (o wire.Options, err error) {
	if w.Tap != nil {
		o.Pcap, err = w.Tap(left, right)
	}
	return o, err
}

// NewWired makes two namespaces that are joined by a wire. It needs /dev/net/tun.
func NewWired(on Wiring, left, right string) (*Topology, *wire.Wire, error) {
	o, err := on.options(left, right)
	if err != nil {
		return nil, nil, err
	}
	t := &Topology{}
	if err := t.addNodes(left, right); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	w, err := t.wire(0, t.Nodes[0], t.Nodes[1], o)
	if err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	t.Nodes[0].IPv4, t.Nodes[0].IPv6 = wireAddrs(0, 1)
	t.Nodes[1].IPv4, t.Nodes[1].IPv6 = wireAddrs(0, 2)
	return t, w, nil
}

func (t *Topology) addNodes(names ...string) error {
	for _, name := range names {
		n, err := newNode(name, netip.Addr{}, netip.Addr{})
		if err != nil {
			return err
		}
		t.Nodes = append(t.Nodes, n)
	}
	return nil
}

// wireAddrs are the addresses of a host on the nth wire.
func wireAddrs(nth, host byte) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 99, nth, host}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 3: nth, 15: host})
}

// prefixes are those of the addresses that this kernel can have.
func prefixes(v4, v6 netip.Addr) []netip.Prefix {
	if !HasIPv6() {
		return []netip.Prefix{netip.PrefixFrom(v4, 24)}
	}
	return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
}

func wireLink(nth byte) string { return fmt.Sprintf("wire%d", nth) }

// wire joins two nodes by the nth wire, on which the left one is host 1.
func (t *Topology) wire(nth byte, left, right *Node, o wire.Options) (*wire.Wire, error) {
	end := func(n *Node, host byte) wire.End {
		v4, v6 := wireAddrs(nth, host)
		return wire.End{
			Name: n.Name, Netns: n.netns, Link: wireLink(nth),
			Addrs: prefixes(v4, v6),
		}
	}
	w, err := wire.Join(end(left, 1), end(right, 2), o)
	if err == nil {
		t.wires = append(t.wires, w)
	}
	return w, err
}

// NewRouted makes namespaces around a router that passes on what it gets: clients, the
// router, and a server behind it, in that order. Each is joined to the router by a wire,
// which are in the order of the clients, with the server's last.
func NewRouted(on Wiring, clients []string, router, server string) (*Topology, []*wire.Wire, error) {
	t := &Topology{}
	if err := t.routed(on, append(append([]string{}, clients...), router, server)); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	return t, t.wires, nil
}

func (t *Topology) routed(on Wiring, names []string) error {
	if err := t.addNodes(names...); err != nil {
		return err
	}
	last := len(names) - 1
	router, server := t.Nodes[last-1], t.Nodes[last]
	for i, n := range t.Nodes {
		if n == router {
			continue
		}
		// The server is on the right of its wire, the clients are on the left of theirs.
		left, right, host := n, router, byte(1)
		if n == server {
			left, right, host = router, server, 2
		}
		nth := byte(min(i+1, last))
		o, err := on.options(left.Name, right.Name)
		if err != nil {
			return err
		}
		if _, err := t.wire(nth, left, right, o); err != nil {
			return err
		}
		n.IPv4, n.IPv6 = wireAddrs(nth, host)
		if err := n.Do(func() error { return defaultRoutes(wireLink(nth)) }); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	router.IPv4, router.IPv6 = wireAddrs(byte(last), 1)
	router.uplink = wireLink(byte(last))
	return router.forward()
}

// forward makes the node a router.
func (n *Node) forward() error {
	err := n.Set("net.ipv4.ip_forward", "1")
	if err == nil && HasIPv6() {
		err = n.Set("net.ipv6.conf.all.forwarding", "1")
	}
	return err
}

func defaultRoutes(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	for _, everything := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, err := net.ParseCIDR(everything)
		if err != nil {
			return err
		}
		if dst.IP.To4() == nil && !HasIPv6() {
			continue
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("route %s: %w", everything, err)
		}
	}
	return nil
}
