package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Owner is who has a socket open.
type Owner struct {
	PID     int32 // the lowest, of several
	Sharing int32 // how many processes have it, such as the workers of a server
	last    int32 // the process that was counted last
}

// Ownership is the answer to which processes own some sockets.
type Ownership struct {
	// ByInode holds the sockets that were found.
	ByInode map[uint64]Owner
	// Processes holds those that ByInode names and that were still there to be read.
	Processes map[int32]Process
	// Unreadable is the number of processes whose descriptors this process may not
	// see: without root, those of other users.
	Unreadable int
}

// Owners walks the descriptors of every process once and tells which of the sockets
// are open in which. Sockets are named by the inode that sock_diag reports; 0 is
// none. A process that ends during the walk is passed over. Descriptors of a thread
// that does not share them with its process are not seen.
//
// When ctx is cancelled the answer is what was found so far, with ctx's error.
func (t Tree) Owners(ctx context.Context, inodes map[uint64]struct{}) (Ownership, error) {
	found := Ownership{ByInode: map[uint64]Owner{}, Processes: map[int32]Process{}}
	if len(inodes) == 0 {
		return found, nil
	}
	pids, err := t.pids()
	if err != nil {
		return found, fmt.Errorf("find the owners of sockets: %w", err)
	}
	w := walk{tree: t, wanted: inodes, found: &found, entries: make([]byte, 32<<10)}
	w.sizeTells = t.sizeTells()
	for _, pid := range pids {
		if err = ctx.Err(); err != nil {
			break
		}
		w.process(ctx, pid)
	}
	found.describe(t)
	return found, err
}

// pids are the processes of the tree, in rising order as the kernel lists them
// (next_tgid of fs/proc/base.c).
func (t Tree) pids() ([]int, error) {
	dir, err := os.Open(string(t))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New(string(t) + " lists no process")
	}
	return pids, nil
}

// sizeTells is whether the size of a process's fd directory is the number of its
// descriptors, which this process surely has some of.
func (t Tree) sizeTells() bool {
	var st unix.Stat_t
	return unix.Stat(string(t)+"/self/fd", &st) == nil && st.Size > 0
}

// walk is one pass over the descriptors of all processes, with its buffers.
type walk struct {
	tree      Tree
	wanted    map[uint64]struct{}
	found     *Ownership
	sizeTells bool
	entries   []byte
	names     []string
	link      [64]byte
}

func (w *walk) process(ctx context.Context, pid int) {
	path := w.tree.file(pid, "fd")
	if w.sizeTells {
		// Most processes of a host are kernel threads, which have none.
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Size == 0 {
			return
		}
	}
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.refused(pid, err)
		return
	}
	defer unix.Close(dir)
	for ctx.Err() == nil {
		n, err := unix.Getdents(dir, w.entries)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		_, _, w.names = unix.ParseDirent(w.entries[:n], -1, w.names[:0])
		for _, name := range w.names {
			n, err := unix.Readlinkat(dir, name, w.link[:])
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				// The directory is open to root, each link only to who may trace the process.
				w.refused(pid, err)
				return
			}
			if err != nil {
				continue // closed since
			}
			if inode, ok := inode(w.link[:n], "socket:["); ok {
				w.socket(inode, int32(pid))
			}
		}
	}
}

// refused counts a process whose descriptors may not be read.
func (w *walk) refused(pid int, err error) {
	if (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) && !w.tree.kernelThread(pid) {
		w.found.Unreadable++
	}
}

func (w *walk) socket(inode uint64, pid int32) {
	if _, wanted := w.wanted[inode]; !wanted {
		return
	}
	owner, known := w.found.ByInode[inode]
	if !known {
		owner.PID = pid
	}
	if owner.last != pid { // else a copy that dup(2) made
		owner.PID = min(owner.PID, pid)
		owner.Sharing++
		owner.last = pid
	}
	w.found.ByInode[inode] = owner
}

// describe reads each process that was found to own something.
func (o *Ownership) describe(t Tree) {
	pids := map[int32]struct{}{}
	for _, owner := range o.ByInode {
		pids[owner.PID] = struct{}{}
	}
	boot, _ := t.bootTime() // without it, no start is known
	for pid := range pids {
		if p, err := t.describe(int(pid), boot); err == nil {
			o.Processes[pid] = p
		}
	}
}
