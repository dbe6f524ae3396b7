package sockdiag

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// ErrCannotDestroy means that this kernel ends no such socket: it was built without
// CONFIG_INET_DIAG_DESTROY, or, for a time-wait socket, is older than 6.0 (tcp_abort of
// net/ipv4/tcp.c).
var ErrCannotDestroy = errors.New("this kernel cannot destroy such a socket")

// Target is what it takes to destroy one socket: its addresses to find it, and its
// cookie, without which a connection that has the same four numbers by now would be
// hit in its place.
type Target struct {
	Local, Remote         tcp.Addr
	LocalPort, RemotePort uint16
	Interface             uint32
	Cookie                uint64
}

// TargetOf is what it takes to destroy a socket.
func TargetOf(s *tcp.Socket) Target {
	return Target{s.Local, s.Remote, s.LocalPort, s.RemotePort, s.Interface, s.Cookie}
}

// Destroyed counts what became of targets.
type Destroyed struct {
	Done int
	// Gone had ended already, or had made place for another connection.
	Gone int
}

// destroyBatch is how many requests go to the kernel in one datagram. It answers each
// before sendto(2) returns, and its answers must fit into the default receive buffer
// even if it refuses all.
const destroyBatch = 64

// Destroy ends the sockets with SOCK_DESTROY (inet_diag_cmd_exact of
// net/ipv4/inet_diag.c): a full socket sends a reset and its program reads
// ECONNABORTED; a time-wait socket is freed without a packet. It needs CAP_NET_ADMIN in
// the namespace. On an error it tells how far it came.
func (c *Conn) Destroy(targets []Target) (Destroyed, error) {
	raw, err := c.netlink.SyscallConn()
	if err != nil {
		return Destroyed{}, fmt.Errorf("destroy sockets: %w", err)
	}
	var total Destroyed
	for len(targets) > 0 {
		n := min(len(targets), destroyBatch)
		one, err := destroyBatchOf(raw, targets[:n])
		total.Done += one.Done
		total.Gone += one.Gone
		if err != nil {
			return total, fmt.Errorf("destroy sockets: %w", err)
		}
		targets = targets[n:]
	}
	return total, nil
}

// destroyBatchOf sends one datagram of requests and reads an answer to each.
func destroyBatchOf(raw syscall.RawConn, targets []Target) (done Destroyed, err error) {
	failed := 0
	// Only the last request asks for an answer in any case: the kernel answers in order,
	// and the others tell of failures alone.
	request := make([]byte, 0, len(targets)*destroyLength)
	for i, t := range targets {
		request = t.appendRequest(request, uint32(i+1), i == len(targets)-1)
	}
	var sendErr error
	if err := raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sendErr, unix.EAGAIN)
	}); err != nil {
		return done, err
	}
	if sendErr != nil {
		return done, os.NewSyscallError("sendto", sendErr)
	}
	buffer := buffers.Get().(*[receiveBuffer]byte)
	defer buffers.Put(buffer)
	var failure, readErr error
	for last := uint32(0); last < uint32(len(targets)); {
		var n int
		if err := raw.Read(func(fd uintptr) bool {
			n, _, readErr = unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT)
			return !errors.Is(readErr, unix.EAGAIN)
		}); err != nil {
			return done, err
		}
		if errors.Is(readErr, unix.EINTR) {
			continue
		}
		if readErr != nil {
			return done, os.NewSyscallError("recvfrom", readErr)
		}
		a, err := readAnswers(buffer[:n])
		if err != nil {
			return done, err
		}
		last = max(last, a.last)
		done.Gone += a.gone
		failed += a.failed
		failure = cmp.Or(failure, a.failure)
	}
	done.Done = len(targets) - done.Gone - failed
	return done, failure
}

// answers are what the kernel said to some requests.
type answers struct {
	last         uint32 // the sequence number of the last that was answered
	gone, failed int
	failure      error
}

// readAnswers reads the answers of one datagram, each an NLMSG_ERROR.
func readAnswers(b []byte) (a answers, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return a, errCut
		}
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return a, errCut
		}
		kind, sequence, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]
		b = b[min(len(b), align(length)):]
		if kind != unix.NLMSG_ERROR {
			continue
		}
		a.last = sequence
		failure := outcome(body)
		switch {
		case failure == nil:
			continue
		case errors.Is(failure, unix.ENOENT), errors.Is(failure, unix.ESTALE):
			a.gone++
			continue
		case errors.Is(failure, unix.EOPNOTSUPP):
			failure = fmt.Errorf("%w: %w", ErrCannotDestroy, failure)
		}
		a.failed++
		a.failure = cmp.Or(a.failure, failure)
	}
	return a, nil
}

const (
	sockDestroy    = 21 // SOCK_DESTROY of linux/sock_diag.h
	requestV2Size  = 56 // sizeof(struct inet_diag_req_v2)
	destroyLength  = unix.NLMSG_HDRLEN + requestV2Size
	anyState       = 0xffffffff
	mappedPrefixAt = 10 // of the ff:ff in an IPv4-mapped address
)

func (t Target) appendRequest(b []byte, sequence uint32, answer bool) []byte {
	at := len(b)
	b = append(b, make([]byte, destroyLength)...)
	m := b[at:]
	binary.NativeEndian.PutUint32(m, destroyLength)
	binary.NativeEndian.PutUint16(m[4:], sockDestroy)
	flags := uint16(unix.NLM_F_REQUEST)
	if answer {
		flags |= unix.NLM_F_ACK
	}
	binary.NativeEndian.PutUint16(m[6:], flags)
	binary.NativeEndian.PutUint32(m[8:], sequence)
	r := m[unix.NLMSG_HDRLEN:]
	r[0], r[1] = unix.AF_INET6, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], anyState)
	binary.BigEndian.PutUint16(r[8:], t.LocalPort)
	binary.BigEndian.PutUint16(r[10:], t.RemotePort)
	if isMapped(t.Local) && isMapped(t.Remote) {
		r[0] = unix.AF_INET
		copy(r[12:], t.Local[12:])
		copy(r[28:], t.Remote[12:])
	} else {
		copy(r[12:], t.Local[:])
		copy(r[28:], t.Remote[:])
	}
	binary.NativeEndian.PutUint32(r[44:], t.Interface)
	binary.NativeEndian.PutUint32(r[48:], uint32(t.Cookie))
	binary.NativeEndian.PutUint32(r[52:], uint32(t.Cookie>>32))
	return b
}

func isMapped(a tcp.Addr) bool {
	return [mappedPrefixAt]byte(a[:]) == [mappedPrefixAt]byte{} && a[10] == 0xff && a[11] == 0xff
}
