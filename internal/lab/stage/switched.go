package stage

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// maxSwitched bounds the hosts of a switch, whose numbers are parts of addresses.
const maxSwitched = 9

// NewSwitched makes several namespaces that are joined by a switch: a bridge in one
// more namespace, which is no node.
func NewSwitched(names ...string) (*Topology, error) {
	t := &Topology{}
	if err := t.switched(names); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Topology) switched(names []string) error {
	if len(names) > maxSwitched {
		return fmt.Errorf("switch: %d hosts are more than %d", len(names), maxSwitched)
	}
	var err error
	if t.hub, err = newNode("switch", netip.Addr{}, netip.Addr{}); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "switch"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	err = t.hub.Do(func() error { return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)) })
	if err != nil {
		return fmt.Errorf("switch: make a bridge: %w", err)
	}
	for i, name := range names {
		v4, v6 := pairAddrs(byte(i + 1))
		n, err := newNode(name, v4, v6)
		if err != nil {
			return err
		}
		t.Nodes = append(t.Nodes, n)
		if err := t.plugIn(n, fmt.Sprintf("port%d", i+1), bridge); err != nil {
			return fmt.Errorf("switch: plug in %s: %w", name, err)
		}
	}
	for _, n := range t.Nodes {
		if err := n.awaitReady(); err != nil {
			return err
		}
	}
	return nil
}

// plugIn joins a node to the switch.
func (t *Topology) plugIn(n *Node, port string, bridge netlink.Link) error {
	if err := n.addVeth(port, t.hub); err != nil {
		return err
	}
	err := t.hub.Do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(link, bridge), netlink.LinkSetUp(link))
	})
	if err != nil {
		return err
	}
	return n.Do(func() error { return errors.Join(n.linkUp(), n.addAddresses()) })
}
