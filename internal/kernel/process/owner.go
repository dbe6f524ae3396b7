package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Owner is who has a socket open.
type Owner struct {
	PID     int32 // the lowest, of several
	Sharing int32 // how many processes have it, such as the workers of a server
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
	return t.OwnersWithin(ctx, inodes, nil)
}

// OwnersWithin is Owners for sockets that may be closed a moment later, by
// processes that may end: it walks only those in the given network namespaces, and
// describes each when it is met. No map of namespaces is Owners.
func (t Tree) OwnersWithin(ctx context.Context, inodes, netns map[uint64]struct{}) (Ownership, error) {
	found := Ownership{ByInode: map[uint64]Owner{}, Processes: map[int32]Process{}}
	if len(inodes) == 0 {
		return found, nil
	}
	pids, err := t.pids()
	if err != nil {
		return found, fmt.Errorf("find the owners of sockets: %w", err)
	}

	if netns != nil {
		pids = slices.DeleteFunc(pids, func(pid int32) bool {
			link, _ := os.Readlink(t.file(int(pid), "ns/net"))
			within, _ := inode([]byte(link), "net:[")
			_, wanted := netns[within]
			return !wanted
		})
	}
	// To list descriptors is cheap, to read where each leads is not.
	batches := make(chan batch)
	readers := make([]reader, min(4, runtime.GOMAXPROCS(0)))
	var running sync.WaitGroup
	for i := range readers {
		readers[i] = reader{tree: t, wanted: inodes}
		if netns != nil {
			readers[i].met = map[int32]Process{}
		}
		running.Go(func() {
			for b := range batches {
				readers[i].read(b)
			}
		})
	}
	refused, err := t.list(ctx, pids, t.sizeTells(), batches)
	close(batches)
	running.Wait()

	var hits []hit
	for _, r := range readers {
		hits = append(hits, r.hits...)
		refused = append(refused, r.refused...)
		maps.Copy(found.Processes, r.met)
		err = cmp.Or(err, r.err)
	}
	found.gather(hits)
	found.Unreadable = len(distinct(refused))
	found.describe(t)
	if err != nil {
		return found, fmt.Errorf("find the owners of sockets: %w", err)
	}
	return found, ctx.Err()
}

// pids are the processes of the tree.
func (t Tree) pids() ([]int32, error) {
	dir, err := os.Open(string(t))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int32
	for _, name := range names {
		if pid, err := strconv.ParseInt(name, 10, 32); err == nil {
			pids = append(pids, int32(pid))
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("%s lists no process", string(t))
	}
	return pids, nil
}

// sizeTells is whether the size of a process's fd directory is the number of its
// descriptors, which this process surely has some of.
func (t Tree) sizeTells() bool {
	var st unix.Stat_t
	return unix.Stat(string(t)+"/self/fd", &st) == nil && st.Size > 0
}

// batch is some descriptors of a process.
type batch struct {
	pid   int32
	names []string
}

// list sends the descriptors of the processes, and returns the processes that
// refused to show theirs. It fails where this process may open no more files.
func (t Tree) list(ctx context.Context, pids []int32, sizeTells bool, to chan<- batch) (refused []int32, err error) {
	entries := make([]byte, 32<<10)
	for _, pid := range pids {
		if ctx.Err() != nil {
			break
		}
		path := t.file(int(pid), "fd")
		if sizeTells {
			// Most processes of a host are kernel threads, which have none.
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil && st.Size == 0 {
				continue
			}
		}
		dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if isRefusal(err) && !t.kernelThread(int(pid)) {
			refused = append(refused, pid)
		}
		if noMoreFiles(err) {
			return refused, err
		}
		if err != nil {
			continue
		}
		for ctx.Err() == nil {
			n, err := unix.Getdents(dir, entries)
			if err != nil || n == 0 {
				break // the end, or the process's
			}
			_, _, names := unix.ParseDirent(entries[:n], -1, nil)
			to <- batch{pid, names}
		}
		unix.Close(dir)
	}
	return refused, nil
}

func noMoreFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

func isRefusal(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// hit is a wanted socket in the hands of a process.
type hit struct {
	inode uint64
	pid   int32
}

// reader finds the wanted sockets among descriptors.
type reader struct {
	tree    Tree
	wanted  map[uint64]struct{}
	hits    []hit
	refused []int32
	met     map[int32]Process // those with hits, nil where they are described later
	err     error
	link    [64]byte
}

func (r *reader) read(b batch) {
	dir, err := unix.Open(r.tree.file(int(b.pid), "fd"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if noMoreFiles(err) {
		r.err = err
	}
	if err != nil {
		return // gone since
	}
	defer unix.Close(dir)
	for _, name := range b.names {
		n, err := unix.Readlinkat(dir, name, r.link[:])
		if isRefusal(err) {
			// The directory is open to root, its links only to who may trace the process.
			r.refused = append(r.refused, b.pid)
			return
		}
		if err != nil {
			continue // closed since
		}
		if inode, ok := inode(r.link[:n], "socket:["); ok {
			if _, wanted := r.wanted[inode]; wanted {
				r.hits = append(r.hits, hit{inode, b.pid})
				r.meet(b.pid)
			}
		}
	}
}

func (r *reader) meet(pid int32) {
	if _, known := r.met[pid]; known || r.met == nil {
		return
	}
	boot, _ := r.tree.bootTime() // without it, the start is not known
	if p, err := r.tree.describe(int(pid), boot); err == nil {
		r.met[pid] = p
	}
}

// gather counts the processes of each socket; one that has it twice, by dup(2),
// counts once.
func (o *Ownership) gather(hits []hit) {
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.inode, b.inode), cmp.Compare(a.pid, b.pid))
	})
	for _, h := range slices.Compact(hits) {
		owner, known := o.ByInode[h.inode]
		if !known {
			owner.PID = h.pid
		}
		owner.Sharing++
		o.ByInode[h.inode] = owner
	}
}

// describe reads each process that was found to own something.
func (o *Ownership) describe(t Tree) {
	var pids []int32
	for _, owner := range o.ByInode {
		if _, met := o.Processes[owner.PID]; !met {
			pids = append(pids, owner.PID)
		}
	}
	boot, _ := t.bootTime() // without it, no start is known
	for _, pid := range distinct(pids) {
		if p, err := t.describe(int(pid), boot); err == nil {
			o.Processes[pid] = p
		}
	}
}

func distinct(pids []int32) []int32 {
	slices.Sort(pids)
	return slices.Compact(pids)
}
