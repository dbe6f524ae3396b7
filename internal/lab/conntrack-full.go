package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/sysctl"
	"linger/internal/proof"
)

var conntrackFull = Scenario{
	Slug:  "conntrack-full",
	Title: "connection tracking of a namespace is full to 95 %, a third of it in its TIME_WAIT",
	Cure:  "the table holds a tenth of that",
	build: func(ctx context.Context, b *Built, o Options) error {
		b.Expect = Expectation{Node: b.server}
		var most int
		err := b.server.Do(func() error {
			text, err := sysctl.Read("net.netfilter.nf_conntrack_max")
			if err == nil {
				most, err = strconv.Atoi(text)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("limit of conntrack: %w", err)
		}
		entries := most * 95 / 100
		if o.Cured {
			entries /= 10
		}
		return b.server.track(ctx, made{ipv6: o.IPv6, waiting: 3}, 0, entries)
	},
}

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	trackNew        = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK << 8) // IPCTNL_MSG_CT_NEW
	trackAssured    = 1<<1 | 1<<2 | 1<<3                                  // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
	trackTimeWait   = 7                                                   // TCP_CONNTRACK_TIME_WAIT
	trackEstab      = 3                                                   // TCP_CONNTRACK_ESTABLISHED
	trackBatch      = 64
	trackLifeSecond = 600
)

// made says what made-up connections are like: one of so many is in the table's
// TIME_WAIT, none if waiting is 0; the others are established.
type made struct {
	ipv6    bool
	waiting int
}

// track puts made-up connections into the table of a node's namespace, counted from a
// number on, by which they differ. They are assured: no new one takes their place.
func (n *Node) track(ctx context.Context, like made, first, entries int) error {
	entries += first
	err := n.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for at := first; at < entries && ctx.Err() == nil; at += trackBatch {
			var batch []netlink.Message
			for i := at; i < min(at+trackBatch, entries); i++ {
				data, err := trackedEntry(like, i)
				if err != nil {
					return err
				}
				flags := netlink.Request | netlink.Create | netlink.Excl
				if i == entries-1 {
					flags |= netlink.Acknowledge
				}
				batch = append(batch, netlink.Message{Header: netlink.Header{Type: trackNew, Flags: flags}, Data: data})
			}
			if _, err := conn.SendMessages(batch); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err = conn.Receive()
		return err
	})
	if err != nil {
		return fmt.Errorf("node %s: fill conntrack: %w", n.Name, err)
	}
	return nil
}

// trackedEntry is the ith of as many different connections to one service.
func trackedEntry(like made, i int) ([]byte, error) {
	from := netip.AddrFrom4([4]byte{10, 50, byte(i >> 24), byte(i >> 16)})
	to := netip.AddrFrom4([4]byte{10, 60, 0, 1})
	family, first := byte(unix.AF_INET), uint16(1) // CTA_IP_V4_SRC
	if like.ipv6 {
		from = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x50, 14: byte(i >> 24), 15: byte(i >> 16)})
		to = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x60, 15: 1})
		family, first = unix.AF_INET6, 3 // CTA_IP_V6_SRC
	}
	port := uint16(i)
	tuple := func(source, destination netip.Addr, sourcePort, destinationPort uint16) func(*netlink.AttributeEncoder) error {
		return func(e *netlink.AttributeEncoder) error {
			e.Nested(1, func(ip *netlink.AttributeEncoder) error {
				ip.Bytes(first, source.AsSlice())
				ip.Bytes(first+1, destination.AsSlice())
				return nil
			})
			e.Nested(2, func(proto *netlink.AttributeEncoder) error {
				proto.ByteOrder = binary.BigEndian
				proto.Uint8(1, unix.IPPROTO_TCP)
				proto.Uint16(2, sourcePort)
				proto.Uint16(3, destinationPort)
				return nil
			})
			return nil
		}
	}
	state := uint8(trackEstab)
	if like.waiting > 0 && i%like.waiting == 0 {
		state = trackTimeWait
	}
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(1, tuple(from, to, port, servicePort))
	e.Nested(2, tuple(to, from, servicePort, port))
	e.Uint32(3, trackAssured)
	e.Uint32(7, trackLifeSecond) // CTA_TIMEOUT
	e.Nested(4, func(info *netlink.AttributeEncoder) error {
		info.Nested(1, func(of *netlink.AttributeEncoder) error {
			of.Uint8(1, state)
			return nil
		})
		return nil
	})
	attributes, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...), nil
}

// trackedConnects fills the table of a namespace to a share of its limit, in percent,
// and connects to a service there twenty times. Where the table holds TIME_WAIT it first
// knocks until it is let in: once a connection was dropped, the kernel's collector, which
// comes by once a minute or more often, takes what is in TIME_WAIT above 95 % of the limit
// (gc_worker of net/netfilter/nf_conntrack_core.c, tcp_can_early_drop).
func trackedConnects(percent int, like made, untracked bool, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
		if err != nil {
			return err
		}
		if err := s.server.refuseUnknown(nftables.ChainHookInput); err != nil {
			return err
		}
		if untracked {
			if err := s.server.leaveUntracked(); err != nil {
				return err
			}
		}
		most, err := s.server.number("net.netfilter.nf_conntrack_max")
		if err != nil {
			return err
		}
		if err := s.server.fillTable(ctx, like, most*percent/100); err != nil {
			return err
		}
		dial := DialSpec{To: []netip.AddrPort{s.service}, Count: 1, PatienceMS: 150}
		for done := (Dialed{}); like.waiting > 0 && done.Opened == 0; {
			if done, err = s.parties.client.Hold(ctx, dial); err != nil {
				return err
			}
		}
		dial.Count = 20
		done, err := s.parties.client.Hold(ctx, dial)
		if err != nil {
			return err
		}
		t.record(done)
		entries, err := s.server.number("net.netfilter.nf_conntrack_count")
		if err != nil {
			return err
		}
		t.Record("entries_percent", 100*float64(entries)/float64(most))
		return nil
	}
}

// fillTable makes up entries until there are so many. The kernel refuses some where a
// chain of its hash table, which all namespaces share, is too long
// (nf_conntrack_hash_check_insert of net/netfilter/nf_conntrack_core.c).
func (n *Node) fillTable(ctx context.Context, like made, entries int) error {
	const rounds = 50
	first := 0
	for range rounds {
		have, err := n.number("net.netfilter.nf_conntrack_count")
		if err != nil || have >= entries {
			return err
		}
		if err := n.track(ctx, like, first, entries-have); err != nil && ctx.Err() != nil {
			return err
		}
		first += entries - have
	}
	return fmt.Errorf("node %s: connection tracking does not take %d entries", n.Name, entries)
}

// number is a setting of the node that is one number.
func (n *Node) number(key string) (value int, err error) {
	err = n.Do(func() error {
		text, err := sysctl.Read(key)
		if err == nil {
			value, err = strconv.Atoi(text)
		}
		return err
	})
	return value, err
}

var conntrackFullProof = Experiment{
	Name: "conntrack-full", Problem: "conntrack-full",
	Title:    "The connection-tracking table is full",
	Question: "New connections are dropped in silence. What lets them through?",
	Setup:    "the namespace's own table filled with made-up connections that are established and assured (ctnetlink); 20 connects. nf_conntrack_max is the host's and is not written",
	Quantities: []proof.Quantity{
		failures, timedOut, succeeded, {Name: "entries_percent", Title: "the table is full to", Unit: "%"},
	},
	Arms: []Arm{
		{Arm: base("the table is full", proof.Exactly("failed", 20)), Seconds: 12, Run: trackedConnects(100, made{}, false)},
		{Arm: remedy("fewer", "A tenth as many entries", "fewer connections, or a limit ten times as large", proof.Works, proof.Exactly("failed", 0)), Seconds: 3, Run: trackedConnects(10, made{}, false)},
		{Arm: remedy("notrack", "Leave the service untracked", "nft: notrack in raw prerouting and output", proof.Works, proof.Exactly("failed", 0)), Seconds: 12, Run: trackedConnects(100, made{}, true)},
		{Arm: observe("time-wait-entries", "Filled with the table's own TIME_WAIT", "the kernel drops those above 95 %, at most a minute later", proof.Works, proof.Exactly("failed", 0)), Seconds: 65, Load: Waits, Run: trackedConnects(100, made{waiting: 1}, false)},
		{Arm: why(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout, and tcp_tw_reuse", "net.ipv4.tcp_fin_timeout=5, tcp_tw_reuse=1", proof.NoEffect)), "The table has time-outs of its own (nf_conntrack_tcp_timeout_*)."), Seconds: 12, Run: trackedConnects(100, made{}, false, setting{atServer, "net.ipv4.tcp_fin_timeout", "5"}, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
	},
}
