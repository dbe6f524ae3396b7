// Package sockdiag reads the TCP sockets of one network namespace from the
// kernel's sock_diag interface (net/ipv4/inet_diag.c, man 7 sock_diag), one
// after the other, without keeping any. It opens no socket but netlink's own and
// keeps no opinion on what it reads.
package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// tcpdiagGetsock is TCPDIAG_GETSOCK of linux/inet_diag.h. Unlike
// SOCK_DIAG_BY_FAMILY it takes AF_UNSPEC, so that one walk over the hash table
// of established connections yields both families.
const tcpdiagGetsock netlink.HeaderType = 18

// Extensions of linux/inet_diag.h: attributes of an answer, and as bit n-1 of a
// request's idiag_ext.
const (
	attrInfo    = 2  // INET_DIAG_INFO, a struct tcp_info
	attrV6Only  = 11 // INET_DIAG_SKV6ONLY
	extInfo     = 1 << (attrInfo - 1)
	requestSize = 60 // sizeof(struct inet_diag_req)
)

// receiveBuffer is the most that netlink_dump puts into one answer (32 KiB,
// net/netlink/af_netlink.c). A smaller buffer would cut messages.
const receiveBuffer = 32 << 10

// Request says which sockets to dump.
type Request struct {
	// States are those wanted; none means all. FIN_WAIT2 cannot be asked for
	// without its time-wait sockets, nor these without it.
	States []tcp.State
	// LastAck asks for Socket.LastAckReceived, at the cost of a tcp_info for each
	// full socket.
	LastAck bool
	// Filter is run by the kernel, which sends no other sockets. See Filter.Chooses
	// for what it may send all the same.
	Filter Filter
}

// buffers are shared by all connections: one dump needs one, and a host has
// hundreds of namespaces.
var buffers = sync.Pool{New: func() any { return new([receiveBuffer]byte) }}

// Conn is a sock_diag connection to one network namespace.
type Conn struct {
	netlink *netlink.Conn
}

// Dial connects to the namespace of an open namespace file, or to that of the
// calling thread where the descriptor is 0. Entering a foreign namespace needs
// CAP_SYS_ADMIN.
func Dial(netnsFD int) (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: netnsFD})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return &Conn{netlink: c}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.netlink.Close() }

// Dump calls visit for each socket that the request matches. The Socket is
// overwritten after visit returns. Without CAP_NET_ADMIN the kernel tells
// the same but for marks. The dump is no atomic picture: a socket that changes
// its state meanwhile may show twice or not at all.
//
// When ctx is done Dump stops and returns its error; the connection is then of
// no more use, since the rest of the dump is still in it.
func (c *Conn) Dump(ctx context.Context, r Request, visit func(*tcp.Socket)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sent, err := c.netlink.Send(netlink.Message{
		Header: netlink.Header{Type: tcpdiagGetsock, Flags: netlink.Request | netlink.Dump},
		Data:   r.encode(),
	})
	if err != nil {
		return fmt.Errorf("request a dump of sockets: %w", err)
	}
	raw, err := c.netlink.SyscallConn()
	if err != nil {
		return fmt.Errorf("dump sockets: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.netlink.SetReadDeadline(time.Unix(1, 0)) })

	// Received by hand: netlink.Conn would copy each message, and a dump may hold
	// a million of them.
	buffer := buffers.Get().(*[receiveBuffer]byte)
	defer buffers.Put(buffer)
	d := decoder{sequence: sent.Header.Sequence, visit: visit}
	var drainErr error
	err = raw.Read(func(fd uintptr) bool {
		for ctx.Err() == nil {
			n, _, err := unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				drainErr = os.NewSyscallError("recvfrom", err)
				return true
			case n > len(buffer):
				drainErr = fmt.Errorf("%w: %d bytes in one datagram", errCut, n)
				return true
			}
			done, err := d.datagram(buffer[:n])
			if done || err != nil {
				drainErr = err
				return true
			}
		}
		return true
	})
	if !stop() { // the deadline is set, or is about to be
		return ctx.Err()
	}
	if err := errors.Join(err, drainErr); err != nil {
		return fmt.Errorf("dump sockets: %w", err)
	}
	return nil
}

// encode writes a struct inet_diag_req, and its filter behind it.
func (r Request) encode() []byte {
	b := make([]byte, requestSize)
	b[0] = unix.AF_UNSPEC
	if r.LastAck {
		b[3] = extInfo
	}
	states := uint32(1<<tcp.FinWait2TimeWait - 1)
	if len(r.States) > 0 {
		states = 0
		for _, s := range r.States {
			if s == tcp.FinWait2TimeWait {
				s = tcp.FinWait2
			}
			states |= 1 << s
		}
	}
	binary.NativeEndian.PutUint32(b[52:], states)
	if program := r.Filter.encode(); len(program) > 0 {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(program)))
		b = binary.NativeEndian.AppendUint16(b, attrFilter)
		b = append(b, program...)
	}
	return b
}

// decoder takes the datagrams of one dump apart.
type decoder struct {
	sequence uint32
	visit    func(*tcp.Socket)
	socket   tcp.Socket
}

var errCut = errors.New("the kernel's answer is cut short")

// datagram visits the sockets of one datagram, and tells whether it was the last
// of the dump.
func (d *decoder) datagram(b []byte) (done bool, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return false, errCut
		}
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return false, errCut
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		sequence := binary.NativeEndian.Uint32(b[8:])
		body := b[unix.NLMSG_HDRLEN:length]
		b = b[min(len(b), align(length)):]
		if sequence != d.sequence {
			continue // the rest of an answer to an earlier request
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, outcome(body)
		case unix.NLMSG_OVERRUN:
			return true, errCut
		case uint16(tcpdiagGetsock):
			if err := decode(&d.socket, body); err != nil {
				return false, err
			}
			d.visit(&d.socket)
		}
	}
	return false, nil
}

// outcome reads the error number of NLMSG_DONE or NLMSG_ERROR. Old kernels send
// NLMSG_DONE without one.
func outcome(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(body)); n < 0 {
		return syscall.Errno(-n)
	}
	return nil
}

// align rounds up to NLMSG_ALIGNTO and NLA_ALIGNTO, which are both 4.
func align(n int) int { return (n + 3) &^ 3 }
