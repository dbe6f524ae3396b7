package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Flow is an entry of the table: a connection as it came, and as its answers come.
type Flow struct {
	// State is conntrack's own name of the TCP state, and of other protocols udp or
	// other.
	State string
	// Translated tells that the source was changed (IPS_SRC_NAT): it seems to be
	// Source, with Port, to the Destination.
	Translated  bool
	Source      netip.AddrPort
	Destination netip.AddrPort
}

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	getEntries    = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | 1) // IPCTNL_MSG_CT_GET
	newEntry      = unix.NFNL_SUBSYS_CTNETLINK << 8                       // IPCTNL_MSG_CT_NEW, of which a dump is made
	generalHeader = 4                                                     // sizeof(struct nfgenmsg)

	attrReply     = 2 // CTA_TUPLE_REPLY
	attrStatus    = 3 // CTA_STATUS
	attrProtoInfo = 4 // CTA_PROTOINFO

	statusSourceNAT = 1 << 4 // IPS_SRC_NAT
)

// tcpStates are conntrack's states of a TCP connection by their number
// (linux/netfilter/nf_conntrack_tcp.h).
var tcpStates = []string{
	"none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "syn_sent2",
}

// sampleBuffer holds what the kernel puts into one answer.
const sampleBuffer = 64 << 10

// Sample visits the first entries of the table of the calling thread's namespace, at
// most so many, and tells whether that was all of it. The kernel lists them in the
// order of a keyed hash of their addresses (ctnetlink_dump_table), so that the first
// ones are a fair sample. It needs CAP_NET_ADMIN.
func Sample(ctx context.Context, most int, visit func(Flow)) (complete bool, err error) {
	complete, err = visitFirst(ctx, most, visit)
	if err != nil {
		return complete, fmt.Errorf("sample conntrack: %w", err)
	}
	return complete, nil
}

func visitFirst(ctx context.Context, most int, visit func(Flow)) (complete bool, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, err
	}
	// Closing it ends the dump, however long the rest of the table.
	defer conn.Close()
	_, err = conn.Send(netlink.Message{
		Header: netlink.Header{Type: getEntries, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return false, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Received by hand: netlink.Conn would wait for the end of the dump.
	buffer := make([]byte, sampleBuffer)
	seen := 0
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		for ctx.Err() == nil && seen < most {
			n, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				failure = os.NewSyscallError("recvfrom", err)
				return true
			}
			complete, failure = parse(buffer[:n], func(f Flow) {
				if seen++; seen <= most {
					visit(f)
				}
			})
			if complete || failure != nil {
				return true
			}
		}
		return true
	})
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return complete && seen <= most, errors.Join(err, failure)
}

// parse visits the entries of one datagram and tells whether it ends the dump.
func parse(b []byte, visit func(Flow)) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				if n := int32(binary.NativeEndian.Uint32(m.Data)); n < 0 {
					return true, syscall.Errno(-n)
				}
			}
			return true, nil
		case newEntry:
			if len(m.Data) < generalHeader {
				return false, errors.New("an entry is cut short")
			}
			f, err := parseFlow(m.Data[generalHeader:])
			if err != nil {
				return false, err
			}
			visit(f)
		}
	}
	return false, nil
}

// parseFlow reads the attributes of one entry.
func parseFlow(b []byte) (Flow, error) {
	f := Flow{State: "other"}
	decoder, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return f, err
	}
	decoder.ByteOrder = binary.BigEndian
	state := ""
	protocol := uint8(0)
	for decoder.Next() {
		switch decoder.Type() {
		case attrReply:
			// The answers go from the destination to where the source seems to be.
			decoder.Nested(func(d *netlink.AttributeDecoder) error {
				var err error
				f.Destination, f.Source, protocol, err = parseTuple(d)
				return err
			})
		case attrStatus:
			f.Translated = decoder.Uint32()&statusSourceNAT != 0
		case attrProtoInfo:
			decoder.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() != 1 { // CTA_PROTOINFO_TCP
						continue
					}
					info.Nested(func(of *netlink.AttributeDecoder) error {
						for of.Next() {
							if of.Type() == 1 { // CTA_PROTOINFO_TCP_STATE
								if n := of.Uint8(); int(n) < len(tcpStates) {
									state = tcpStates[n]
								}
							}
						}
						return nil
					})
				}
				return nil
			})
		}
	}
	switch {
	case protocol == unix.IPPROTO_UDP:
		f.State = "udp"
	case protocol == unix.IPPROTO_TCP && state != "":
		f.State = state
	}
	return f, decoder.Err()
}

// parseTuple reads a struct nf_conntrack_tuple: both ends and the protocol.
func parseTuple(d *netlink.AttributeDecoder) (from, to netip.AddrPort, protocol uint8, err error) {
	var fromAddr, toAddr netip.Addr
	var fromPort, toPort uint16
	for d.Next() {
		switch d.Type() {
		case 1: // CTA_TUPLE_IP
			d.Nested(func(ip *netlink.AttributeDecoder) error {
				for ip.Next() {
					addr, ok := netip.AddrFromSlice(ip.Bytes())
					if !ok {
						return fmt.Errorf("an address of %d bytes", len(ip.Bytes()))
					}
					switch ip.Type() {
					case 1, 3: // CTA_IP_V4_SRC, CTA_IP_V6_SRC
						fromAddr = addr
					case 2, 4: // CTA_IP_V4_DST, CTA_IP_V6_DST
						toAddr = addr
					}
				}
				return nil
			})
		case 2: // CTA_TUPLE_PROTO
			d.Nested(func(p *netlink.AttributeDecoder) error {
				p.ByteOrder = binary.BigEndian
				for p.Next() {
					switch p.Type() {
					case 1: // CTA_PROTO_NUM
						protocol = p.Uint8()
					case 2: // CTA_PROTO_SRC_PORT
						fromPort = p.Uint16()
					case 3: // CTA_PROTO_DST_PORT
						toPort = p.Uint16()
					}
				}
				return nil
			})
		}
	}
	return netip.AddrPortFrom(fromAddr, fromPort), netip.AddrPortFrom(toAddr, toPort), protocol, d.Err()
}
