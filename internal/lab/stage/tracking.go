package stage

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/setting"
)

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	trackNew        = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK << 8) // IPCTNL_MSG_CT_NEW
	trackAssured    = 1<<1 | 1<<2 | 1<<3                                  // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
	trackTimeWait   = 7                                                   // TCP_CONNTRACK_TIME_WAIT
	trackEstab      = 3                                                   // TCP_CONNTRACK_ESTABLISHED
	trackBatch      = 64
	trackLifeSecond = 600
)

// MadeUp says what made-up connections are like: one of so many is in the table's
// TIME_WAIT, none if waiting is 0; the others are established.
type MadeUp struct {
	IPv6    bool
	Waiting int
}

// Track puts made-up connections into the table of a node's namespace, counted from a
// number on, by which they differ. They are assured: no new one takes their place.
func (n *Node) Track(ctx context.Context, like MadeUp, first, entries int) error {
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
func trackedEntry(like MadeUp, i int) ([]byte, error) {
	from := netip.AddrFrom4([4]byte{10, 50, byte(i >> 24), byte(i >> 16)})
	to := netip.AddrFrom4([4]byte{10, 60, 0, 1})
	family, first := byte(unix.AF_INET), uint16(1) // CTA_IP_V4_SRC
	if like.IPv6 {
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
	if like.Waiting > 0 && i%like.Waiting == 0 {
		state = trackTimeWait
	}
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(1, tuple(from, to, port, ServicePort))
	e.Nested(2, tuple(to, from, ServicePort, port))
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

// FillTable makes up entries until there are so many. The kernel refuses some where a
// chain of its hash table, which all namespaces share, is too long
// (nf_conntrack_hash_check_insert of net/netfilter/nf_conntrack_core.c).
func (n *Node) FillTable(ctx context.Context, like MadeUp, entries int) error {
	const rounds = 50
	first := 0
	for range rounds {
		have, err := n.Number(setting.TrackedCount)
		if err != nil || have >= entries {
			return err
		}
		if err := n.Track(ctx, like, first, entries-have); err != nil && ctx.Err() != nil {
			return err
		}
		first += entries - have
	}
	return fmt.Errorf("node %s: connection tracking does not take %d entries", n.Name, entries)
}
