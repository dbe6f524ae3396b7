package stage

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Translation is a rule of source NAT: what leaves a node from one address seems to
// come from another, and from these ports only, if any are given.
type Translation struct {
	From, To  netip.Addr
	Low, High uint16
}

// nftables adds what fill says to the node's own nftables.
func (n *Node) nftables(what string, fill func(*nftables.Conn)) error {
	err := n.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		fill(c)
		return c.Flush()
	})
	for _, missing := range []error{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.ENOENT} {
		if errors.Is(err, missing) {
			err = fmt.Errorf("%w: this kernel lacks nf_tables, or a part of it: modprobe nf_tables nft_chain_nat nft_ct: %w",
				errors.ErrUnsupported, err)
			break
		}
	}
	if err != nil {
		return fmt.Errorf("node %s: %s: %w", n.Name, what, err)
	}
	return nil
}

// Translate adds the rule to the node's own nftables, which makes the kernel track
// the node's connections.
func (n *Node) Translate(t Translation) error {
	return n.nftables(fmt.Sprintf("translate %s to %s", t.From, t.To), func(c *nftables.Conn) {
		family, offset := nftables.TableFamilyIPv4, uint32(12) // saddr of an IPv4 header
		natFamily := uint32(unix.NFPROTO_IPV4)
		if t.From.Is6() {
			family, offset, natFamily = nftables.TableFamilyIPv6, 8, unix.NFPROTO_IPV6
		}
		table := c.AddTable(&nftables.Table{Name: "lab", Family: family})
		chain := c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		length := uint32(t.From.BitLen() / 8)
		rule := []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: t.From.AsSlice()},
			&expr.Immediate{Register: 1, Data: t.To.AsSlice()},
		}
		nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: natFamily, RegAddrMin: 1}
		if t.Low != 0 {
			// Ports can be given for TCP alone.
			rule = append([]expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
			}, rule...)
			rule = append(rule,
				&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(t.Low)},
				&expr.Immediate{Register: 3, Data: binaryutil.BigEndian.PutUint16(t.High)},
			)
			nat.RegProtoMin, nat.RegProtoMax, nat.Specified = 2, 3, true
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, nat)})
	})
}

// Bits of the register that ct state loads (NF_CT_STATE_BIT of
// linux/netfilter/nf_tables.h and nf_conntrack_common.h).
const (
	ctInvalid = 1 << 0
	ctNew     = 1 << 3
)

const (
	flagSYN     = 0x02
	flagsOffset = 13 // of the flags in a TCP header
)

// RefuseUnknown makes the node a firewall of what comes to it (input) or passes it
// (forward): it drops what is neither a SYN nor of a connection that it knows.
func (n *Node) RefuseUnknown(at *nftables.ChainHook) error {
	return n.nftables("firewall", func(c *nftables.Conn) {
		table := c.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{
			Name: "firewall", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: at, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(ctInvalid | ctNew), Xor: make([]byte, 4)},
			&expr.Cmp{Register: 1, Op: expr.CmpOpNeq, Data: make([]byte, 4)},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagSYN}, Xor: []byte{0}},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{0}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	})
}

// LeaveUntracked keeps what comes in and goes out of the node out of connection
// tracking.
func (n *Node) LeaveUntracked() error {
	return n.nftables("leave untracked", func(c *nftables.Conn) {
		table := c.AddTable(&nftables.Table{Name: "raw", Family: nftables.TableFamilyINet})
		for name, hook := range map[string]*nftables.ChainHook{"prerouting": nftables.ChainHookPrerouting,
			"output": nftables.ChainHookOutput} {
			chain := c.AddChain(&nftables.Chain{
				Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook,
				Priority: nftables.ChainPriorityRaw,
			})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Notrack{}}})
		}
	})
}

// ForgetIdle has the node's connection tracking forget a connection that is idle for so
// many seconds. What it then does not know it takes for no connection: it is invalid.
func (n *Node) ForgetIdle(seconds int) error {
	for key, value := range map[string]string{"loose": "0", "timeout_established": strconv.Itoa(seconds)} {
		if err := n.Set("net.netfilter.nf_conntrack_tcp_"+key, value); err != nil {
			return err
		}
	}
	return nil
}

// Masquerade has what a router sends to its server seem to come from the router itself.
func (n *Node) Masquerade() error {
	return n.nftables("masquerade at "+n.uplink, func(c *nftables.Conn) {
		families := []nftables.TableFamily{nftables.TableFamilyIPv4}
		if HasIPv6() {
			families = append(families, nftables.TableFamilyIPv6)
		}
		for _, family := range families {
			table := c.AddTable(&nftables.Table{Name: "masquerade", Family: family})
			chain := c.AddChain(&nftables.Chain{
				Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			})
			name := make([]byte, 16) // IFNAMSIZ
			copy(name, n.uplink)
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: name},
				&expr.Masq{},
			}})
		}
	})
}

// Forget has the node forget the TCP connections that it tracks, as a restarted NAT
// does: one by one, since flushing a table waits for whoever flushes another one
// (nf_conntrack_mutex).
func (n *Node) Forget(ipv6 bool) error {
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

// Tracked counts the entries of a node's table that have not expired: those that have
// are in nf_conntrack_count until the kernel looks through its table, once a minute
// (gc_worker of net/netfilter/nf_conntrack_core.c).
func (n *Node) Tracked() (count int, err error) {
	err = n.Do(func() error {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(unix.AF_INET))
		count = len(entries)
		return err
	})
	return count, err
}
