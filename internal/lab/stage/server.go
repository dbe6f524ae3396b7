package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ServeSpec says what a worker's service does with its connections. It sends back
// what it receives.
type ServeSpec struct {
	// Endpoints to listen on. Port 0 is one of the kernel's choice.
	Endpoints []netip.AddrPort `json:"endpoints"`
	Close     Closing          `json:"close"`
	// SharePort sets SO_REUSEPORT, so that an outgoing connection may use the port
	// of the listener.
	SharePort bool `json:"share_port,omitempty"`
	// Backlog is that of listen(); 0 means SOMAXCONN.
	Backlog int `json:"backlog,omitempty"`
	// NoReuseAddress leaves SO_REUSEADDR out.
	NoReuseAddress bool `json:"no_reuse_address,omitempty"`
	// Sink reads and sends nothing back.
	Sink bool `json:"sink,omitempty"`
	// SlowMS is how long it leaves a new connection unread, in milliseconds.
	SlowMS int64 `json:"slow_ms,omitempty"`
	// KeepBytes is how many bytes of memory it takes for each connection, and never
	// gives back.
	KeepBytes int `json:"keep_bytes,omitempty"`
	// IdleMS is how long a connection may be silent before the service resets it, or
	// closes it in order if IdleFIN; 0 is for ever.
	IdleMS  int64 `json:"idle_ms,omitempty"`
	IdleFIN bool  `json:"idle_fin,omitempty"`
	// Unread leaves what is received in the socket's buffer.
	Unread bool `json:"unread,omitempty"`
}

// Closing says when a service closes a connection.
type Closing string

// CloseFirst: at once, so that the service holds the TIME_WAIT. CloseSecond: when
// the client has closed. CloseNever: not at all, so that connections whose client
// has closed stay in CLOSE_WAIT. CloseByReset: at once, with SO_LINGER and a
// time-out of zero. AcceptNever: connections stay in the listener's queue.
const (
	CloseFirst  Closing = "first"
	CloseSecond Closing = "second"
	CloseNever  Closing = "never"

	CloseByReset Closing = "reset"
	AcceptNever  Closing = "unaccepted"
)

// Served counts the connections of a service.
type Served struct {
	Accepted int64 `json:"accepted"`
	Closed   int64 `json:"closed"`
	// Ended are those whose client has closed.
	Ended int64 `json:"ended"`
	// Bytes were received. Reset are the connections that ended by a reset.
	Bytes int64 `json:"bytes"`
	Reset int64 `json:"reset"`
}

// server is a service on one thread. It uses epoll itself, not through Go's
// network poller: that costs two system calls more for each connection, and a
// wake-up of a goroutine.
type server struct {
	epoll  int
	spec   ServeSpec
	buffer []byte
	kept   [][]byte
	last   map[int]time.Time // when each connection was last heard, if that matters

	accepted, closed, ended, bytes, reset atomic.Int64
}

// Marks in the spare half of an epoll event's data.
const (
	isConnection = 0
	isListener   = 1
)

// listen opens the endpoints and returns them with their real ports.
func listen(spec ServeSpec) (*server, []netip.AddrPort, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("epoll: %w", err)
	}
	s := &server{epoll: epoll, spec: spec, buffer: make([]byte, 64<<10), last: map[int]time.Time{}}
	bound := make([]netip.AddrPort, 0, len(spec.Endpoints))
	for _, endpoint := range spec.Endpoints {
		fd, err := listenOn(endpoint, spec)
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", endpoint, err)
		}
		own, err := localEndpoint(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", endpoint, err)
		}
		bound = append(bound, own)
		if spec.Close == AcceptNever {
			continue
		}
		if err := s.watch(fd, isListener); err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", endpoint, err)
		}
	}
	return s, bound, nil
}

func listenOn(endpoint netip.AddrPort, spec ServeSpec) (fd int, err error) {
	fd, err = unix.Socket(family(endpoint.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if !spec.NoReuseAddress {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, err
		}
	}
	if spec.SharePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, err
		}
	}
	if err := unix.Bind(fd, sockaddr(endpoint)); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, cmp.Or(spec.Backlog, unix.SOMAXCONN))
}

func (s *server) watch(fd int, mark int32) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd), Pad: mark})
}

// run serves until the process ends.
func (s *server) run() error {
	events := make([]unix.EpollEvent, 256)
	patience := -1
	if s.spec.IdleMS > 0 {
		patience = 20
	}
	for {
		n, err := unix.EpollWait(s.epoll, events, patience)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if event.Pad == isListener {
				if err := s.accept(int(event.Fd)); err != nil {
					return err
				}
				continue
			}
			s.receive(int(event.Fd), true)
		}
		if s.spec.IdleMS > 0 {
			s.dropIdle()
		}
	}
}

// dropIdle ends the connections that were silent for too long.
func (s *server) dropIdle() {
	for fd, last := range s.last {
		if time.Since(last) < time.Duration(s.spec.IdleMS)*time.Millisecond {
			continue
		}
		if !s.spec.IdleFIN {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		s.drop(fd)
	}
}

// accept takes what waits in one listener's queue, up to a bound, so that many
// listeners get their turn.
func (s *server) accept(listener int) error {
	for range 256 {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		default:
			return fmt.Errorf("accept: %w", err)
		}
		s.accepted.Add(1)
		if s.spec.KeepBytes > 0 {
			s.keep()
		}
		if s.spec.Unread {
			continue
		}
		switch s.spec.Close {
		case CloseByReset:
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return fmt.Errorf("SO_LINGER: %w", err)
			}
			fallthrough
		case CloseFirst:
			s.drop(fd)
			continue
		}
		if s.spec.SlowMS > 0 {
			Sleep(context.Background(), time.Duration(s.spec.SlowMS)*time.Millisecond)
		}
		// The client has often closed already; then epoll need not hear of it.
		if s.receive(fd, false) {
			if err := s.watch(fd, isConnection); err != nil {
				return fmt.Errorf("epoll: %w", err)
			}
		}
	}
	return nil
}

// receive sends back what came, and tells whether the connection goes on.
func (s *server) receive(fd int, watched bool) bool {
	if s.spec.IdleMS > 0 {
		s.last[fd] = time.Now()
	}
	n, err := unix.Read(fd, s.buffer)
	switch {
	case n > 0 && s.spec.Sink:
		s.bytes.Add(int64(n))
		return true
	case n > 0:
		s.bytes.Add(int64(n))
		if _, err := unix.Write(fd, s.buffer[:n]); err == nil || errors.Is(err, unix.EAGAIN) {
			return true
		}
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return true
	case errors.Is(err, unix.ECONNRESET):
		s.reset.Add(1)
	}
	s.ended.Add(1)
	if s.spec.Close != CloseNever {
		s.drop(fd)
	} else if watched {
		unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	return false
}

// keep takes memory, and touches each page of it.
func (s *server) keep() {
	memory := make([]byte, s.spec.KeepBytes)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	s.kept = append(s.kept, memory)
}

func (s *server) drop(fd int) {
	delete(s.last, fd)
	unix.Close(fd)
	s.closed.Add(1)
}

func (s *server) served() Served {
	return Served{Accepted: s.accepted.Load(), Closed: s.closed.Load(), Ended: s.ended.Load(), Bytes: s.bytes.Load(),
		Reset: s.reset.Load()}
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(endpoint netip.AddrPort) unix.Sockaddr {
	if endpoint.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: endpoint.Addr().As4(), Port: int(endpoint.Port())}
	}
	return &unix.SockaddrInet6{Addr: endpoint.Addr().As16(), Port: int(endpoint.Port())}
}

func localEndpoint(fd int) (netip.AddrPort, error) {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("socket address of type %T", own)
}
