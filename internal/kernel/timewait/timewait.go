// Package timewait reads of each TIME_WAIT socket of a network namespace what
// connect() asks of it before it takes its port over, and sock_diag does not tell:
// whether bind() owns the port, whether the connection used time stamps, and how long
// ago it was closed. A BPF iterator (iter/tcp, kernel 5.9) walks the sockets; nothing is
// pinned, and nothing of it is left when it is closed.
package timewait

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

//go:generate -command bpf2go go run github.com/cilium/ebpf/cmd/bpf2go@v0.22.0 -cc clang-14 -strip llvm-strip-14 -tags linux
//go:generate bpf2go timewait timewait.bpf.c -- -I../bpf -O2 -Wall -Werror

// ErrForbidden means that the kernel allows this process no BPF program: it takes
// CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), and may be locked down for all.
var ErrForbidden = errors.New("BPF is not allowed to this process")

// ErrNoIterator means that this kernel cannot do it: it is older than 5.9, or was
// built without BTF or BPF.
var ErrNoIterator = errors.New("this kernel has no BPF iterator over TCP sockets")

// Addr is an address of 16 bytes, an IPv4 address as ::ffff:a.b.c.d: it is compared and
// hashed faster than a netip.Addr.
type Addr [16]byte

// Socket is one TIME_WAIT socket. Those in FIN_WAIT2 are none.
type Socket struct {
	Local, Remote         Addr
	LocalPort, RemotePort uint16
	// Age is the time since it entered TIME_WAIT, to the millisecond. Before kernel
	// 6.14 it is that since the last segment, in seconds of the clock that have begun,
	// as those kernels compare it, and not known without time stamps.
	Age      time.Duration
	AgeKnown bool
	// Bound: the port is owned by a bind(), so that connect() passes over it.
	Bound bool
	// Timestamps: the connection used them (RFC 7323); without, it is not taken over.
	Timestamps bool
}

// Iterator is a program in the kernel that reads TIME_WAIT sockets. It may be used by
// several goroutines at once.
type Iterator struct {
	objects timewaitObjects
	link    *link.Iter
}

// Load brings the program into the kernel. Where that cannot be the error is
// ErrForbidden or ErrNoIterator, with the kernel's own reason.
func Load() (*Iterator, error) {
	var it Iterator
	if err := loadTimewaitObjects(&it.objects, nil); err != nil {
		return nil, reason(err)
	}
	var err error
	if it.link, err = link.AttachIter(link.IterOptions{Program: it.objects.TimeWait}); err != nil {
		it.objects.Close()
		return nil, reason(err)
	}
	return &it, nil
}

func reason(err error) error {
	// The verifier's log is many lines, and the last error of the chain says it all.
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		err = verifier.Cause
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return fmt.Errorf("%w: %w", ErrNoIterator, err)
}

// Close takes the program out of the kernel.
func (it *Iterator) Close() error {
	return errors.Join(it.link.Close(), it.objects.Close())
}

// recordSize is that of struct record in timewait.bpf.c; bufferSize is how many of
// them fit into what the kernel fills at once (bpf_seq_read of kernel/bpf/bpf_iter.c).
const (
	recordSize = 44
	bufferSize = 32 << 10 / recordSize * recordSize
)

// Each calls visit for each TIME_WAIT socket of the calling thread's namespace, which
// is that of the sockets for as long as Each runs. The Socket is overwritten after visit
// returns. It is no atomic picture: sockets come and go meanwhile.
func (it *Iterator) Each(ctx context.Context, visit func(*Socket)) error {
	// The kernel takes the namespace of the thread that opens the file, not of the one
	// that loaded the program (bpf_iter_init_seq_net of fs/proc/proc_net.c).
	file, err := it.link.Open()
	if err != nil {
		return fmt.Errorf("open the iterator over TIME_WAIT sockets: %w", err)
	}
	defer file.Close()
	buffer := make([]byte, bufferSize)
	var s Socket
	for filled := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := file.Read(buffer[filled:])
		filled += n
		whole := filled / recordSize * recordSize
		for at := 0; at < whole; at += recordSize {
			s.decode(buffer[at : at+recordSize])
			visit(&s)
		}
		filled = copy(buffer, buffer[whole:filled])
		switch {
		case errors.Is(err, io.EOF) && filled == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read TIME_WAIT sockets: %w", io.ErrUnexpectedEOF)
		case errors.Is(err, unix.EAGAIN): // a million sockets of other states in a row
		case err != nil:
			return fmt.Errorf("read TIME_WAIT sockets: %w", err)
		}
	}
}

// Flags of struct record.
const (
	flagBound      = 1
	flagTimestamps = 2
	flagAge        = 4
)

func (s *Socket) decode(b []byte) {
	s.Local = Addr(b[0:])
	s.Remote = Addr(b[16:])
	s.Age = time.Duration(binary.NativeEndian.Uint32(b[32:])) * time.Millisecond
	s.LocalPort = binary.NativeEndian.Uint16(b[36:])
	s.RemotePort = binary.NativeEndian.Uint16(b[38:])
	flags := binary.NativeEndian.Uint32(b[40:])
	s.Bound = flags&flagBound != 0
	s.Timestamps = flags&flagTimestamps != 0
	s.AgeKnown = flags&flagAge != 0
}
