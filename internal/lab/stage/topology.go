// Package stage is what the laboratory's problems are built from: network namespaces as
// nodes, the links and wires between them, what their kernels are told to do with packets,
// and the processes inside that serve and dial as they are told. All of it is gone when it
// is closed and when the process that made it ends. It refuses to write a setting or send
// a packet anywhere else.
package stage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/sysctl"
	"linger/internal/lab/wire"
	"linger/internal/setting"
)

// Topology is a set of anonymous network namespaces and the links between them.
// It is gone when it is closed, and when the process that made it ends.
type Topology struct {
	Nodes []*Node

	hub   *Node // the switch between the nodes, nil where there is none
	wires []*wire.Wire
}

// Node is one namespace of a topology.
type Node struct {
	Name       string
	IPv4, IPv6 netip.Addr

	netns   *netns.Handle
	workers []*Worker
	dirs    []string // of programs that were run in it
	uplink  string   // of a router, to its server
}

// NewLoopback makes one namespace, whose addresses are those of the loopback
// interface.
func NewLoopback(name string) (*Topology, error) {
	n, err := newNode(name, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	if err != nil {
		return nil, err
	}
	return &Topology{Nodes: []*Node{n}}, nil
}

// NewPair makes two namespaces that are joined by a veth link.
func NewPair(left, right string) (*Topology, error) {
	t := &Topology{}
	for i, name := range []string{left, right} {
		v4, v6 := pairAddrs(byte(i + 1))
		n, err := newNode(name, v4, v6)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.Nodes = append(t.Nodes, n)
	}
	if err := join(t.Nodes[0], t.Nodes[1]); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// pairAddrs are the addresses of a host on a link, of those for private networks (RFC
// 1918, RFC 4193).
func pairAddrs(host byte) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 99, 0, host}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 15: host})
}

func newNode(name string, v4, v6 netip.Addr) (*Node, error) {
	h, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", name, err)
	}
	return &Node{Name: name, IPv4: v4, IPv6: v6, netns: h}, nil
}

// Close ends all workers, and with them the last users of the namespaces.
func (t *Topology) Close() error {
	var errs []error
	for _, w := range t.wires {
		errs = append(errs, w.Close())
	}
	t.wires = nil
	for _, n := range t.Nodes {
		for _, w := range n.workers {
			errs = append(errs, w.Close())
		}
		n.workers = nil
		for _, dir := range n.dirs {
			errs = append(errs, os.RemoveAll(dir))
		}
		n.dirs = nil
		errs = append(errs, n.netns.Close())
	}
	t.Nodes = nil
	if t.hub != nil {
		errs = append(errs, t.hub.netns.Close())
		t.hub = nil
	}
	return errors.Join(errs...)
}

const linkName = "eth0"

// addVeth gives a node its link, whose other end is in another node.
func (n *Node) addVeth(peerName string, peer *Node) error {
	return n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = linkName
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     attrs,
			PeerName:      peerName,
			PeerNamespace: netlink.NsFd(peer.netns.FD()),
		})
	})
}

func join(left, right *Node) error {
	if err := left.addVeth(linkName, right); err != nil {
		return fmt.Errorf("join %s and %s: %w", left.Name, right.Name, err)
	}
	// Both ends up first: an IPv6 address on a link without a carrier stays
	// tentative until the carrier comes and a delay has passed (net/ipv6/addrconf.c).
	for _, step := range []func(*Node) error{(*Node).linkUp, (*Node).addAddresses} {
		for _, n := range []*Node{left, right} {
			if err := n.Do(func() error { return step(n) }); err != nil {
				return fmt.Errorf("join %s and %s: %w", left.Name, right.Name, err)
			}
		}
	}
	for _, n := range []*Node{left, right} {
		if err := n.awaitReady(); err != nil {
			return fmt.Errorf("join %s and %s: %w", left.Name, right.Name, err)
		}
	}
	return nil
}

// readyPatience is how long a link has to come up.
const readyPatience = 10 * time.Second

// awaitReady waits until the link carries packets and its addresses can be used: a
// connection that begins before waits a second for its SYN to be sent again.
func (n *Node) awaitReady() error {
	for deadline := time.Now().Add(readyPatience); ; time.Sleep(time.Millisecond) {
		ready := false
		err := n.Do(func() (err error) { ready, err = isReady(); return err })
		if err != nil || ready {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s of %s is not up after %s", linkName, n.Name, readyPatience)
		}
	}
}

// isReady asks for the routes of IPv6 addresses, too: a worker of the kernel makes them
// (addrconf_dad_work of net/ipv6/addrconf.c), and a connection to the address that begins
// before looks for it on the link, and fails three seconds later.
func isReady() (bool, error) {
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return false, fmt.Errorf("link %s: %w", linkName, err)
	}
	var addrs []netlink.Addr
	if HasIPv6() {
		addrs, err = netlink.AddrList(link, netlink.FAMILY_V6)
	}
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", linkName, err)
	}
	for _, a := range addrs {
		if int(a.Scope) != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		routes, err := netlink.RouteGet(a.IP)
		if a.Flags&unix.IFA_F_TENTATIVE != 0 || err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return false, nil
		}
	}
	return link.Attrs().OperState == netlink.OperUp, nil
}

// linkUp and addAddresses work in the namespace of the calling thread.
func (n *Node) linkUp() error {
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("link %s: %w", linkName, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s up: %w", linkName, err)
	}
	return nil
}

func (n *Node) addAddresses() error {
	for _, addr := range Possible(n.IPv4, n.IPv6) {
		if err := giveAddress(addr, false); err != nil {
			return err
		}
	}
	return nil
}

// AddAddress gives the node's link one more address. connect() goes on choosing the
// first one: a second one of IPv4 is not chosen, and one of IPv6 is added as deprecated
// (RFC 6724, rule 3).
func (n *Node) AddAddress(addr netip.Addr) error {
	if err := n.Do(func() error { return giveAddress(addr, true) }); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return n.awaitReady()
}

func giveAddress(addr netip.Addr, deprecated bool) error {
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("link %s: %w", linkName, err)
	}
	bits, flags := 24, 0
	if addr.Is6() {
		// Nobody else can have the address: no duplicate address detection.
		bits, flags = 64, unix.IFA_F_NODAD
	}
	added := &netlink.Addr{
		IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())},
		Flags: flags,
	}
	if deprecated && addr.Is6() {
		added.ValidLft = math.MaxUint32 // for ever, and preferred for no time
	}
	err = netlink.AddrAdd(link, added)
	if err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	return nil
}

// Addr is the node's IPv6 or IPv4 address.
func (n *Node) Addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return n.IPv6
	}
	return n.IPv4
}

// Do runs fn on a thread inside the node's namespace.
func (n *Node) Do(fn func() error) error { return n.netns.Do(fn) }

// Path opens the node's namespace for as long as the topology is not closed.
func (n *Node) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.netns.FD())
}

// Inode is the number of the node's namespace.
func (n *Node) Inode() uint64 { return n.netns.Inode() }

// Set writes a setting of the node's namespace. Only keys that the kernel keeps
// for each namespace may be given: net.ipv4 and net.core ones that exist there.
func (n *Node) Set(key, value string) error {
	if !strings.HasPrefix(key, "net.") {
		return fmt.Errorf("node %s: %s is not kept for each namespace, and is left alone", n.Name, key)
	}
	err := n.Do(func() error { return sysctl.Write(key, value) })
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// Number is a setting of the node that is one number.
func (n *Node) Number(key string) (value int, err error) {
	err = n.Do(func() error {
		text, err := sysctl.Read(key)
		if err == nil {
			value, err = strconv.Atoi(text)
		}
		return err
	})
	return value, err
}

// NarrowRange leaves n ports for connect() to choose from.
func (n *Node) NarrowRange(ports int) error {
	const low = 40_000
	return n.Set(setting.LocalPortRange, fmt.Sprintf("%d %d", low, low+ports-1))
}

// Start starts a worker inside the node's namespace; name is at most 15 bytes, as
// /proc/PID/comm shows no more. It ends with the topology at the latest.
func (n *Node) Start(ctx context.Context, name string) (*Worker, error) {
	w, err := startWorker(ctx, n.netns, name)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.workers = append(n.workers, w)
	return w, nil
}

// Vanish makes the node silent to another: what that one sends still leaves it, as
// to a host whose plug was pulled behind a switch, and nothing answers.
func (n *Node) Vanish(from *Node) error {
	var hardware net.HardwareAddr
	err := n.Do(func() error {
		link, err := netlink.LinkByName(linkName)
		if err != nil {
			return fmt.Errorf("link %s: %w", linkName, err)
		}
		hardware = link.Attrs().HardwareAddr
		return nil
	})
	if err != nil {
		return fmt.Errorf("node %s vanishes: %w", n.Name, err)
	}
	// The neighbour stays known; it would be asked for in vain otherwise, and the
	// kernel would tell the sockets.
	err = from.Do(func() error {
		link, err := netlink.LinkByName(linkName)
		if err != nil {
			return fmt.Errorf("link %s: %w", linkName, err)
		}
		for _, addr := range Possible(n.IPv4, n.IPv6) {
			err := netlink.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: hardware,
			})
			if err != nil {
				return fmt.Errorf("neighbour %s: %w", addr, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("node %s vanishes: %w", n.Name, err)
	}
	err = n.Do(func() error {
		link, err := netlink.LinkByName(linkName)
		if err != nil {
			return fmt.Errorf("link %s: %w", linkName, err)
		}
		for _, addr := range Possible(n.IPv4, n.IPv6) {
			bits := 24
			if addr.Is6() {
				bits = 64
			}
			err := netlink.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(),
				Mask: net.CIDRMask(bits, addr.BitLen())}})
			if err != nil {
				return fmt.Errorf("address %s: %w", addr, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("node %s vanishes: %w", n.Name, err)
	}
	return nil
}
