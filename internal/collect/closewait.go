package collect

import (
	"context"
	"fmt"

	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

const (
	// closeWaitFrom is from how many CLOSE_WAIT sockets on a namespace gets the
	// second look.
	closeWaitFrom = 10
	// closeWaitOldMS is the age in milliseconds from which a CLOSE_WAIT is old: a
	// program that closes in its own time has done so by then.
	closeWaitOldMS = 3000
	// closeWaitInodes is the size of the sample from which owners are told.
	closeWaitInodes = 1024
)

// oldCloseWait are the CLOSE_WAIT sockets of one group.
type oldCloseWait struct {
	old, unaccepted int
	inodes          []uint32 // of the old, the first closeWaitInodes of them
}

// lookAtCloseWait takes the second look, at CLOSE_WAIT alone.
func (r *reading) lookAtCloseWait(ctx context.Context) {
	wanted := map[uint64]struct{}{}
	for _, ns := range r.namespaces {
		if !ns.connected || ns.facts.States[tcp.CloseWait] < closeWaitFrom {
			continue
		}
		request := sockdiag.Request{States: []tcp.State{tcp.CloseWait}, LastAck: true}
		err := ns.dump(ctx, request, func(s *tcp.Socket) {
			g := ns.sorted.Of(s)
			if g == nil {
				return
			}
			seen := r.owners.old[g]
			if seen == nil {
				seen = &oldCloseWait{}
				r.owners.old[g] = seen
			}
			switch {
			case s.Inode == 0:
				seen.unaccepted++
			case s.LastAckReceived >= closeWaitOldMS:
				seen.old++
				if len(seen.inodes) < closeWaitInodes {
					seen.inodes = append(seen.inodes, s.Inode)
					wanted[uint64(s.Inode)] = struct{}{}
				}
			}
		})
		if err != nil && ctx.Err() == nil {
			r.gap(ns.label(), "the age of CLOSE_WAIT sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
		}
	}
	if len(wanted) == 0 {
		return
	}
	found, err := r.proc.Owners(ctx, wanted)
	r.owners.learn(found)
	if found.Unreadable > 0 && len(found.ByInode) < len(wanted) {
		r.gap("", "owners of some CLOSE_WAIT sockets", needsRights("CAP_SYS_PTRACE"), errUnreadable(found.Unreadable))
	} else if err != nil && ctx.Err() == nil {
		r.gap("", "owners of CLOSE_WAIT sockets", "a mounted /proc", err)
	}
}

// closeWait is what the second look showed of a group.
func (b *ownerBook) closeWait(g *group.Group) *snapshot.CloseWait {
	seen := b.old[g]
	if seen == nil {
		return nil
	}
	pids := map[int32]int{}
	for _, inode := range seen.inodes {
		if owner, known := b.byInode[uint64(inode)]; known {
			pids[owner.PID]++
		}
	}
	return &snapshot.CloseWait{
		Old:        seen.old,
		Unaccepted: seen.unaccepted,
		Owners:     b.named(pids, snapshot.Seen, len(seen.inodes), seen.old),
	}
}

// errUnreadable is the cause of a gap: processes whose descriptors are hidden.
type errUnreadable int

func (n errUnreadable) Error() string {
	if n == 1 {
		return "the descriptors of 1 process may not be read"
	}
	return fmt.Sprintf("the descriptors of %d processes may not be read", int(n))
}
