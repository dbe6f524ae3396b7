package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/procnet"
	"linger/internal/lab/wire"
	"linger/internal/proof"
)

// network is what an experiment on the wire is built on.
type network struct {
	ipv6 bool
	// tap gives the file that a wire writes its packets to, by the names of its ends; nil
	// for none.
	tap func(left, right string) (io.Writer, error)
}

// options are those of one of its wires.
func (n network) options(left, right string) (o wire.Options, err error) {
	if n.tap != nil {
		o.Pcap, err = n.tap(left, right)
	}
	return o, err
}

// wired makes two namespaces that are joined by a wire.
func (n network) wired(left, right string) (*Topology, *wire.Wire, error) {
	o, err := n.options(left, right)
	if err != nil {
		return nil, nil, err
	}
	return NewWired(left, right, o)
}

// NewWired makes two namespaces that are joined by a wire. It needs /dev/net/tun.
func NewWired(left, right string, o wire.Options) (*Topology, *wire.Wire, error) {
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
	if !hasIPv6() {
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

// masqueraded are two clients behind a NAT, and a server: four nodes and three wires.
type masqueraded struct {
	*Topology
	first, second, nat, server *Node
	// toSecond is the wire between the second client and the NAT, toServer the one
	// between the NAT and the server.
	toSecond, toServer *wire.Wire
}

// newMasqueraded makes the nodes. What leaves the NAT for the server has the NAT's
// address, by a real masquerade of nftables.
func newMasqueraded(on network) (*masqueraded, error) {
	t := &masqueraded{Topology: &Topology{}}
	if err := t.build(on); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *masqueraded) build(on network) (err error) {
	if err := t.addNodes("first client", "second client", "nat", "server"); err != nil {
		return err
	}
	t.first, t.second, t.nat, t.server = t.Nodes[0], t.Nodes[1], t.Nodes[2], t.Nodes[3]
	var wires [3]*wire.Wire
	for i, ends := range [3][2]*Node{{t.first, t.nat}, {t.second, t.nat}, {t.nat, t.server}} {
		o, err := on.options(ends[0].Name, ends[1].Name)
		if err != nil {
			return err
		}
		if wires[i], err = t.wire(byte(i+1), ends[0], ends[1], o); err != nil {
			return err
		}
	}
	t.toSecond, t.toServer = wires[1], wires[2]
	t.first.IPv4, t.first.IPv6 = wireAddrs(1, 1)
	t.second.IPv4, t.second.IPv6 = wireAddrs(2, 1)
	t.nat.IPv4, t.nat.IPv6 = wireAddrs(3, 1)
	t.server.IPv4, t.server.IPv6 = wireAddrs(3, 2)
	if err := t.nat.forward(); err != nil {
		return err
	}
	for nth, n := range map[byte]*Node{1: t.first, 2: t.second} {
		// Time stamps of the plain clock, without an offset for each connection, as
		// kernels before 4.10 sent them.
		if err := n.Set("net.ipv4.tcp_timestamps", "2"); err != nil {
			return err
		}
		if err := n.Do(func() error { return defaultRoutes(wireLink(nth)) }); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return t.nat.masquerade(wireLink(3))
}

// NewFirewalled makes three namespaces, a client, a firewall and a server: the firewall
// passes on what it knows, and forgets connections that are idle for so many seconds.
func NewFirewalled(forgetSeconds int) (*Topology, error) {
	t := &Topology{}
	if err := t.firewalled(forgetSeconds); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Topology) firewalled(forgetSeconds int) error {
	if err := t.addNodes("client", "firewall", "server"); err != nil {
		return err
	}
	client, firewall, server := t.Nodes[0], t.Nodes[1], t.Nodes[2]
	if _, err := t.wire(1, client, firewall, wire.Options{}); err != nil {
		return err
	}
	if _, err := t.wire(2, firewall, server, wire.Options{}); err != nil {
		return err
	}
	client.IPv4, client.IPv6 = wireAddrs(1, 1)
	firewall.IPv4, firewall.IPv6 = wireAddrs(1, 2)
	server.IPv4, server.IPv6 = wireAddrs(2, 2)
	for nth, n := range map[byte]*Node{1: client, 2: server} {
		if err := n.Do(func() error { return defaultRoutes(wireLink(nth)) }); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	if err := firewall.forward(); err != nil {
		return err
	}
	if err := firewall.refuseUnknown(nftables.ChainHookForward); err != nil {
		return err
	}
	return firewall.forgetIdle(forgetSeconds)
}

// forward makes the node a router.
func (n *Node) forward() error {
	err := n.Set("net.ipv4.ip_forward", "1")
	if err == nil && hasIPv6() {
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
		if dst.IP.To4() == nil && !hasIPv6() {
			continue
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("route %s: %w", everything, err)
		}
	}
	return nil
}

// masquerade has what leaves by a link seem to come from the node itself.
func (n *Node) masquerade(link string) error {
	return n.nftables("masquerade at "+link, func(c *nftables.Conn) {
		families := []nftables.TableFamily{nftables.TableFamilyIPv4}
		if hasIPv6() {
			families = append(families, nftables.TableFamilyIPv6)
		}
		for _, family := range families {
			table := c.AddTable(&nftables.Table{Name: "masquerade", Family: family})
			chain := c.AddChain(&nftables.Chain{
				Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			})
			name := make([]byte, 16) // IFNAMSIZ
			copy(name, link)
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: name},
				&expr.Masq{},
			}})
		}
	})
}

// forget has the node forget the TCP connections that it tracks, as a restarted NAT
// does: one by one, since flushing a table waits for whoever flushes another one
// (nf_conntrack_mutex).
func (n *Node) forget(ipv6 bool) error {
	family := netlink.InetFamily(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	filter := &netlink.ConntrackFilter{}
	if err := filter.AddProtocol(unix.IPPROTO_TCP); err != nil {
		return err
	}
	err := n.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
		return err
	})
	if err != nil {
		return fmt.Errorf("node %s: forget connections: %w", n.Name, err)
	}
	return nil
}

// shiftClock makes the clock of a wire's left end go after by ms milliseconds, as if that host had
// been started later: its time stamps are changed on the way out, and back again on
// the way in.
func shiftClock(w *wire.Wire, ms uint32) {
	stamped := func(s *wire.Segment) bool { return s.TimeStamps != nil }
	w.SetRules(
		wire.Rule{Match: wire.Match{From: wire.Left, Where: stamped}, Edit: func(s *wire.Segment) {
			s.SetTimeStamps(wire.TimeStamps{Value: s.TimeStamps.Value - ms, Echo: s.TimeStamps.Echo})
		}},
		wire.Rule{Match: wire.Match{From: wire.Right, Where: stamped}, Edit: func(s *wire.Segment) {
			s.SetTimeStamps(wire.TimeStamps{Value: s.TimeStamps.Value, Echo: s.TimeStamps.Echo + ms})
		}},
	)
}

// counters are those of the node, named as nstat names them.
func (n *Node) counters() (c map[string]uint64, err error) {
	err = n.Do(func() error {
		c, err = procnet.ReadCounters()
		return err
	})
	return c, err
}

// rise is what counters rose by.
func rise(before, after map[string]uint64, name string) int { return int(after[name] - before[name]) }

// ladderOf is a ladder of the wire as a part of a proof.
func ladderOf(title string, l wire.Ladder) proof.Ladder {
	drawn := proof.Ladder{Title: title, Left: l.Left, Right: l.Right, Rungs: []proof.Rung{}}
	for _, r := range l.Rungs {
		drawn.Rungs = append(drawn.Rungs, proof.Rung{
			Seconds: (r.At - l.Rungs[0].At).Seconds(), FromLeft: r.From == wire.Left, Label: r.Label, Lost: !r.Arrived, Note: r.Note,
		})
	}
	return drawn
}

// truth is 1 or 0.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
