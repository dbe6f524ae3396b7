package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Socket is a TCP socket of an experiment that needs what Go's own hide: chosen ports
// and sequence numbers, half closes, the error that a program is told. It does not
// block; its methods wait.
type Socket struct{ fd int }

// Socket makes one in the node's namespace, bound to its address and a port.
func (n *Node) Socket(local netip.AddrPort) (*Socket, error) {
	s := &Socket{fd: -1}
	err := n.Do(func() (err error) {
		if s.fd, err = unix.Socket(family(local.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		for _, o := range []struct{ level, name int }{{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.IPPROTO_TCP, unix.TCP_NODELAY}} {
			if err := unix.SetsockoptInt(s.fd, o.level, o.name, 1); err != nil {
				return fmt.Errorf("socket: %w", err)
			}
		}
		if err := unix.Bind(s.fd, sockaddr(local)); err != nil {
			return fmt.Errorf("bind %s: %w", local, err)
		}
		return nil
	})
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return s, nil
}

// Listener makes a socket that listens.
func (n *Node) Listener(local netip.AddrPort) (*Socket, error) {
	s, err := n.Socket(local)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(s.fd, unix.SOMAXCONN); err != nil {
		s.Close()
		return nil, fmt.Errorf("node %s: listen on %s: %w", n.Name, local, err)
	}
	return s, nil
}

func (s *Socket) Close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// Reset closes by a reset: SO_LINGER with a time-out of zero.
func (s *Socket) Reset() error {
	err := unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	s.Close()
	return err
}

// Finish sends a FIN, and leaves the socket for what comes back.
func (s *Socket) Finish() error { return unix.Shutdown(s.fd, unix.SHUT_WR) }

// BeginAt chooses the initial sequence number of a connection, before connect, by
// TCP_REPAIR: connect() takes the kernel's own only where none was set
// (tcp_v4_connect). What follows is an ordinary handshake.
func (s *Socket) BeginAt(sequence uint32) error {
	const sendQueue = 2 // TCP_SEND_QUEUE of linux/tcp.h
	for _, o := range []struct {
		name, value int
	}{
		{unix.TCP_REPAIR, unix.TCP_REPAIR_ON}, {unix.TCP_REPAIR_QUEUE, sendQueue},
		{unix.TCP_QUEUE_SEQ, int(int32(sequence))}, {unix.TCP_REPAIR, unix.TCP_REPAIR_OFF},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, o.name, o.value); err != nil {
			return fmt.Errorf("TCP_REPAIR: %w", err)
		}
	}
	return nil
}

// Begin starts to connect.
func (s *Socket) Begin(to netip.AddrPort) error {
	err := unix.Connect(s.fd, sockaddr(to))
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

// Established waits until a connection that began stands. Past ctx's deadline the
// error is os.ErrDeadlineExceeded.
func (s *Socket) Established(ctx context.Context) error {
	if err := s.await(ctx, unix.POLLOUT); err != nil {
		return err
	}
	return s.pending()
}

// Connect is begin and established.
func (s *Socket) Connect(ctx context.Context, to netip.AddrPort) error {
	if err := s.Begin(to); err != nil {
		return err
	}
	return s.Established(ctx)
}

// pending is the error that the kernel holds for the program, once.
func (s *Socket) pending() error {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

func (s *Socket) Accept(ctx context.Context) (*Socket, error) {
	if err := s.await(ctx, unix.POLLIN); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return &Socket{fd}, nil
}

// Read reads what has come, at most size bytes: io.EOF after the peer's FIN.
func (s *Socket) Read(ctx context.Context, size int) ([]byte, error) {
	if err := s.await(ctx, unix.POLLIN); err != nil {
		return nil, err
	}
	buffer := make([]byte, size)
	n, err := readSome(s.fd, buffer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return buffer[:max(n, 0)], err
}

// ReadEnd reads until the peer's FIN.
func (s *Socket) ReadEnd(ctx context.Context) error {
	for {
		if _, err := s.Read(ctx, 64<<10); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (s *Socket) Write(data []byte) error { return writeAll(s.fd, data) }

// Gone waits until the kernel has no connection for the socket any more, and returns
// what the program is told: nil, or the errno.
func (s *Socket) Gone(ctx context.Context) error {
	const closed = 7 // TCP_CLOSE
	for {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if info.State == closed {
			return s.pending()
		}
		Sleep(ctx, time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("socket stays in state %d: %w", info.State, os.ErrDeadlineExceeded)
		}
	}
}

// await waits in short turns, so that ctx is heeded.
func (s *Socket) await(ctx context.Context, events int16) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: events}}, 20)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return os.ErrDeadlineExceeded
}

// DestroyTimeWait ends a time-wait socket of this node.
func (n *Node) DestroyTimeWait(local, remote netip.AddrPort) error {
	err := n.Do(func() error {
		return netlink.SocketDestroy(net.TCPAddrFromAddrPort(local), net.TCPAddrFromAddrPort(remote))
	})
	if err != nil {
		return fmt.Errorf("node %s: destroy the time-wait socket of %s and %s: %w", n.Name, local, remote, err)
	}
	return nil
}
