package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/tcp"
)

// Of include/uapi/linux/io_uring.h.
const (
	opAccept   = 13
	opConnect  = 16
	opClose    = 19
	opSend     = 26
	opRecv     = 27
	opShutdown = 34

	inWorker = 1 << 4 // IOSQE_ASYNC: not by the caller, but by a thread of io-wq

	offsetSubmissions = 0x10000000
	offsetCompletions = 0x8000000
	enterGetEvents    = 1
)

type ringOffsets struct{ Head, Tail, Mask, Entries, Flags, Dropped, Array, _ uint32 }

// submission is struct io_uring_sqe.
type submission struct {
	Op, Flags uint8
	_         uint16
	FD        int32
	Offset    uint64
	Addr      uint64
	Len       uint32
	OpFlags   uint32
	User      uint64
	_         [3]uint64
}

// ring is an io_uring that does one thing at a time.
type ring struct {
	fd                  int
	submissions, events []byte
	entries             []byte
	sq, cq              ringOffsets
}

func newRing() (*ring, error) {
	var params struct {
		_  [10]uint32
		SQ ringOffsets
		_  uint64
		CQ struct{ Head, Tail, Mask, Entries, Overflow, Events, _, _ uint32 }
		_  uint64
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd), sq: params.SQ}
	r.cq = ringOffsets{Head: params.CQ.Head, Tail: params.CQ.Tail, Mask: params.CQ.Mask, Array: params.CQ.Events}
	var errs [3]error
	const mode = unix.PROT_READ | unix.PROT_WRITE
	r.submissions, errs[0] = unix.Mmap(r.fd, 0, 4096, mode, unix.MAP_SHARED)
	r.events, errs[1] = unix.Mmap(r.fd, offsetCompletions, 4096, mode, unix.MAP_SHARED)
	r.entries, errs[2] = unix.Mmap(r.fd, offsetSubmissions, 4096, mode, unix.MAP_SHARED)
	return r, errors.Join(errs[:]...)
}

func at(memory []byte, offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&memory[offset])) }

// do submits one thing and waits for its result.
func (r *ring) do(s submission) (int, error) {
	tail := atomic.LoadUint32(at(r.submissions, r.sq.Tail))
	slot := tail & *at(r.submissions, r.sq.Mask)
	*(*submission)(unsafe.Pointer(&r.entries[slot*64])) = s
	*at(r.submissions, r.sq.Array+4*slot) = slot
	atomic.StoreUint32(at(r.submissions, r.sq.Tail), tail+1)
	for submit := uintptr(1); ; {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, enterGetEvents, 0, 0)
		if errno == 0 {
			break
		}
		if errno != unix.EINTR {
			return 0, fmt.Errorf("io_uring_enter: %w", errno)
		}
		if atomic.LoadUint32(at(r.submissions, r.sq.Head)) == tail+1 {
			submit = 0
		}
	}
	head := atomic.LoadUint32(at(r.events, r.cq.Head))
	for atomic.LoadUint32(at(r.events, r.cq.Tail)) == head {
		runtime.Gosched()
	}
	event := r.cq.Array + 16*(head&*at(r.events, r.cq.Mask)) // struct io_uring_cqe: its result is at 8
	result := int32(*at(r.events, event+8))
	atomic.StoreUint32(at(r.events, r.cq.Head), head+1)
	if result < 0 {
		return 0, fmt.Errorf("operation %d: %w", s.Op, unix.Errno(-result))
	}
	return int(result), nil
}

// uring says what the program does.
type uring struct {
	To     netip.AddrPort
	Accept bool // or connect
	Count  int
	Flags  uint8
}

const uringVariable = "TRACE_TEST_URING"

// runURing is a program of its own: it opens connections by io_uring, sends and receives, and
// closes each; or it accepts them, and closes each first.
func runURing() error {
	var u uring
	if err := json.Unmarshal([]byte(os.Getenv(uringVariable)), &u); err != nil {
		return err
	}
	runtime.LockOSThread() // the work that is put off is this thread's
	r, err := newRing()
	if err != nil {
		return err
	}
	one := make([]byte, 1)
	address := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: u.To.Addr().As4()}
	*(*[2]byte)(unsafe.Pointer(&address.Port)) = [2]byte{byte(u.To.Port() >> 8), byte(u.To.Port())}
	listener := -1
	if u.Accept {
		l, err := net.Listen("tcp", u.To.String())
		if err != nil {
			return err
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		listener = int(f.Fd())
		fmt.Println("ready")
	}
	for range u.Count {
		fd := -1
		if u.Accept {
			fd, err = r.do(submission{Op: opAccept, Flags: u.Flags, FD: int32(listener)})
		} else {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err == nil {
				_, err = r.do(submission{
					Op: opConnect, Flags: u.Flags, FD: int32(fd), Addr: uint64(uintptr(unsafe.Pointer(&address))), Offset: unix.SizeofSockaddrInet4,
				})
			}
		}
		if err != nil {
			return err
		}
		message := submission{Flags: u.Flags, FD: int32(fd), Addr: uint64(uintptr(unsafe.Pointer(&one[0]))), Len: 1}
		steps := []uint8{opSend, opRecv, opClose}
		if u.Accept {
			steps = []uint8{opRecv, opSend, opClose}
		}
		if u.Flags&inWorker != 0 {
			steps = slices.Insert(steps, 2, opShutdown) // which is never done by the caller (io_shutdown_prep)
		}
		for _, op := range steps {
			s := message
			switch s.Op = op; op {
			case opShutdown:
				s.Addr, s.Len = 0, unix.SHUT_WR
			case opClose:
				s.Addr, s.Len = 0, 0
			}
			if _, err := r.do(s); err != nil {
				return err
			}
		}
	}
	runtime.KeepAlive(one)
	runtime.KeepAlive(&address)
	fmt.Println(map[bool]string{true: "by workers", false: "by itself "}[hasWorkers()])
	io.Copy(io.Discard, os.Stdin) // until the test ends it
	return nil
}

// hasWorkers tells whether io-wq has threads in this process.
func hasWorkers() bool {
	names, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "iou-wrk-") {
			return true
		}
	}
	return false
}

func (u uring) start(t *testing.T, ns *netns.Handle, cgroup, name string) *running {
	t.Helper()
	spec, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, ns, cgroup, name, self(t), []string{uringVariable + "=" + string(spec)})
}

// TestIOURing: who opens and closes by io_uring is named, whether it does so itself or a thread of
// io-wq does.
func TestIOURing(t *testing.T) {
	const n = 100
	if r, err := newRing(); err != nil {
		t.Skip("no io_uring here: ", err)
	} else {
		unix.Close(r.fd)
	}
	to := netip.MustParseAddrPort("127.0.0.1:8000")
	for how, flags := range map[string]uint8{"by itself ": 0, "by workers": inWorker} {
		for _, accepts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accepts %v", strings.TrimSpace(how), accepts), func(t *testing.T) {
				ns, id := newNamespace(t)
				cgroup, number := newCgroup(t)
				tr := follow(t, Options{Netns: []Netns{id}, MaxOwners: 1 << 12}) // each CPU takes 128 places of these at a time
				ringer := who{"the-ringer", tcp.Connector}
				want := map[who]tally{
					ringer:                      {"opened": n, "closed-here": n, "handed-over": n},
					{"the-other", tcp.Acceptor}: {"opened": n, "closed-there": n},
				}
				var r *running
				if accepts {
					ringer.role = tcp.Acceptor
					want = map[who]tally{
						ringer:                       {"opened": n, "closed-here": n, "handed-over": n},
						{"the-other", tcp.Connector}: {"opened": n, "closed-there": n},
					}
					r = uring{To: to, Accept: true, Count: n, Flags: flags}.start(t, ns, cgroup, ringer.process)
					r.says(t, "ready")
					peer{Dial: to.String(), Count: n, Do: "ask and wait"}.start(t, ns, "", "the-other").ends(t)
				} else {
					peer{Listen: to.String(), Count: n, Do: "answer"}.start(t, ns, "", "the-other").says(t, "ready")
					r = uring{To: to, Count: n, Flags: flags}.start(t, ns, cgroup, ringer.process)
				}
				r.says(t, how)
				found := eventually(t, tr, id, want)
				if g := found[ringer]; g.PID != uint32(r.Process.Pid) || g.Cgroup != number {
					t.Errorf("it is pid %d in cgroup %d, want %d in %d", g.PID, g.Cgroup, r.Process.Pid, number)
				}
				owners, err := tr.Owners()
				if err != nil {
					t.Fatal(err)
				}
				mine := 0
				for socket, owner := range owners {
					if socket.Netns == id && owner == (Owner{ringer.process, uint32(r.Process.Pid), number}) {
						mine++
					}
				}
				if mine != n {
					t.Errorf("%d of %d closed sockets are given to it", mine, n)
				}
			})
		}
	}
}
