// Package netns knows network namespaces: how to find those of a host, hold one
// open, run a function inside it, and make a fresh one. It refuses to leave a
// thread in a namespace that its caller did not choose: a thread that cannot come
// back dies.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNotNamespace means that a path exists and is no network namespace, such as
// the empty file that is left under /run/netns when its mount is gone.
var ErrNotNamespace = errors.New("not a network namespace")

// Handle holds a network namespace open, so that the namespace and its inode
// number live at least as long. It may be used by several goroutines at once, but
// not while or after it is closed.
type Handle struct {
	file   int    // a descriptor
	number uint64 // in nsfs
}

// Open opens a namespace by a path such as /proc/PID/ns/net or /run/netns/NAME.
// The error is fs.ErrNotExist, fs.ErrPermission or ErrNotNamespace where that is
// the cause.
func Open(path string) (*Handle, error) {
	fd, err := openFile(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	h, err := fromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return h, nil
}

// InodeAt is the inode of the namespace at a path, which it does not open: so the kernel need
// not tell which kind of namespace it is. Its errors are those of Open.
func InodeAt(path string) (uint64, error) {
	var fsys unix.Statfs_t
	var stat unix.Stat_t
	err := unix.Statfs(path, &fsys)
	if err == nil {
		err = unix.Stat(path, &stat)
	}
	if err != nil {
		return 0, &fs.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	if fsys.Type != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("open network namespace %s: %w", path, ErrNotNamespace)
	}
	return stat.Ino, nil
}

// Current opens the namespace of the calling thread.
func Current() (*Handle, error) {
	fd, err := openCurrent()
	if err != nil {
		return nil, err
	}
	h, err := fromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("current network namespace: %w", err)
	}
	return h, nil
}

// New makes a namespace that has no name and that nothing else uses: it is gone
// when its handles are closed and its sockets and processes have ended. Its
// loopback interface is up. It needs CAP_SYS_ADMIN.
func New() (*Handle, error) {
	var h *Handle
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		var err error
		h, err = Current()
		return err
	})
	return h, err
}

// FD is the descriptor of the namespace. It belongs to the handle.
func (h *Handle) FD() int { return h.file }

// Inode is the number of the namespace in nsfs: what readlink shows for
// /proc/PID/ns/net. The kernel uses it again once the namespace is gone.
func (h *Handle) Inode() uint64 { return h.number }

// Close lets go of the namespace. The descriptor is forgotten, for its number will be another file's: closed again, a
// handle says EBADF and closes nothing.
func (h *Handle) Close() error {
	file := h.file
	h.file = -1
	return unix.Close(file)
}

// Cookie is the kernel's number of the namespace, which it never uses twice
// between boots. The error is errors.ErrUnsupported before kernel 5.14
// (SO_NETNS_COOKIE of net/core/sock.c).
func (h *Handle) Cookie() (uint64, error) {
	var cookie uint64
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("network namespace cookie: %w", err)
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("network namespace cookie: %w: needs kernel 5.14", errors.ErrUnsupported)
		}
		if err != nil {
			return fmt.Errorf("network namespace cookie: %w", err)
		}
		return nil
	})
	return cookie, err
}

// Do runs fn on a thread that is inside the namespace, and returns when fn has
// returned. Sockets that fn makes stay in the namespace. A goroutine that fn
// starts does not run inside it. Entering a namespace other than the caller's own
// needs CAP_SYS_ADMIN.
//
// When the thread cannot go back to the namespace that it came from, which takes
// a kernel that refuses what it just allowed, it dies (a process's first thread
// sleeps for good) and fn's own result is returned: the work was done, and no
// other goroutine will see that thread.
func (h *Handle) Do(fn func() error) error {
	runtime.LockOSThread()
	inside, err := h.isCurrent()
	if err == nil && inside {
		defer runtime.UnlockOSThread()
		return fn()
	}
	runtime.UnlockOSThread()
	if err != nil {
		return err
	}

	return onOwnThread(func() error {
		if err := unix.Setns(h.file, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %d: %w", h.number, err)
		}
		return fn()
	})
}

func (h *Handle) isCurrent() (bool, error) {
	var stat unix.Stat_t
	if unix.Stat(currentPath, &stat) == nil {
		return stat.Ino == h.number, nil
	}
	current, err := Current()
	if err != nil {
		return false, err
	}
	defer current.Close()
	return current.number == h.number, nil
}

// errExited is the result of a function that called runtime.Goexit, as
// testing.T.FailNow does.
var errExited = errors.New("function inside the network namespace exited its goroutine")

// onOwnThread runs fn, which may change the namespace of its thread, on a
// goroutine of its own that is locked to its thread. The goroutine unlocks the
// thread only when the old namespace is back; the runtime ends a thread whose
// goroutine ends without having unlocked it.
func onOwnThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errExited
		defer func() { result <- err }()

		runtime.LockOSThread()
		home, homeErr := openCurrent()
		if homeErr != nil {
			runtime.UnlockOSThread()
			err = homeErr
			return
		}
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(home)
		}()
		err = fn()
	}()
	return <-result
}

const currentPath = "/proc/thread-self/ns/net"

// openCurrent opens the namespace of the calling thread. Where /proc is not
// mounted it asks a socket for the namespace that it was made in, which needs
// CAP_NET_ADMIN and kernel 4.10 (SIOCGSKNS of net/socket.c).
func openCurrent() (int, error) {
	fd, err := openFile(currentPath)
	if err == nil {
		return fd, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if fd, err := openOfSocket(); err == nil {
			return fd, nil
		}
	}
	return -1, &fs.PathError{Op: "open network namespace", Path: currentPath, Err: err}
}

func openOfSocket() (int, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer unix.Close(sock)
	fd, err := unix.IoctlRetInt(sock, unix.SIOCGSKNS)
	if err != nil {
		return -1, os.NewSyscallError("ioctl SIOCGSKNS", err)
	}
	return fd, nil
}

// openFile opens without blocking, so that a FIFO in place of a namespace does no
// harm, and tries again when a signal interrupts.
func openFile(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// fromFD takes the descriptor over, and closes it when it is no network
// namespace.
func fromFD(fd int) (*Handle, error) {
	inode, err := inodeOf(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Handle{file: fd, number: inode}, nil
}

func inodeOf(fd int) (uint64, error) {
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	if fsys.Type != unix.NSFS_MAGIC {
		return 0, ErrNotNamespace
	}
	// Before kernel 4.11 nsfs does not say which kind a namespace is (ENOTTY); then
	// setns does, when it is entered.
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		return 0, ErrNotNamespace
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return stat.Ino, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: read its flags: %w", err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}
