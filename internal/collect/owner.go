package collect

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"linger/internal/kernel/process"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// ownersTold is how many owners of a group are reported, the busiest.
const ownersTold = 4

// ownerBook knows the processes behind sockets.
type ownerBook struct {
	byInode   map[uint64]process.Owner
	processes map[int32]process.Process
	// old are the inodes of CLOSE_WAIT sockets, by group.
	old map[*group.Group]*oldCloseWait
}

func (b *ownerBook) learn(found process.Ownership) {
	for inode, owner := range found.ByInode {
		b.byInode[inode] = owner
	}
	for pid, p := range found.Processes {
		b.processes[pid] = p
	}
}

func newOwnerBook() *ownerBook {
	return &ownerBook{
		byInode:   map[uint64]process.Owner{},
		processes: map[int32]process.Process{},
		old:       map[*group.Group]*oldCloseWait{},
	}
}

// findOwners asks once for the owners of all listeners and of the sampled live
// sockets.
func (r *reading) findOwners(ctx context.Context) {
	r.owners = newOwnerBook()
	maps.Copy(r.owners.processes, r.sightings.processes)
	wanted := map[uint64]struct{}{}
	for _, ns := range r.namespaces {
		for _, inode := range ns.listenerInodes {
			wanted[uint64(inode)] = struct{}{}
		}
		for _, g := range ns.sorted.Groups {
			for _, inode := range g.Inodes.Inodes {
				wanted[uint64(inode)] = struct{}{}
			}
			if g.OtherParityInodes != nil {
				for _, inode := range g.OtherParityInodes.Inodes {
					wanted[uint64(inode)] = struct{}{}
				}
			}
		}
	}
	found, err := r.proc.Owners(ctx, wanted)
	r.owners.learn(found)
	if err != nil && ctx.Err() == nil {
		r.gap("", "owners of sockets", "a mounted /proc", err)
	}
	switch missing := len(wanted) - len(found.ByInode); {
	case missing == 0 || err != nil:
	case found.Unreadable > 0:
		r.gap("", "owners of some sockets", needsRights("CAP_SYS_PTRACE"), errUnreadable(found.Unreadable))
	case len(found.ByInode) == 0 || r.processesHidden():
		r.gap("", "owners of sockets", "a /proc that shows all processes (no hidepid, the host's PID namespace)",
			fmt.Errorf("%d of %d sockets belong to no process in /proc", missing, len(wanted)))
	}
}

// sampled counts the owners of a sample of live sockets.
func (b *ownerBook) sampled(s group.Sample) map[int32]int {
	pids := map[int32]int{}
	for _, inode := range s.Inodes {
		if owner, known := b.byInode[uint64(inode)]; known {
			pids[owner.PID]++
		}
	}
	return pids
}

// ownersOf returns the owners of a group, the busiest first.
func (r *reading) ownersOf(ns *namespace, g *group.Group) []snapshot.Owner {
	if owners, _ := r.seen(ns, traceRole(g), g.Key, g); len(owners) > 0 {
		return owners
	}
	if g.Rule == tcp.ByLocalListener {
		if owners := r.listening(ns, g.Local, g.Port); len(owners) > 0 {
			return owners
		}
	}
	how := snapshot.Seen
	if g.Role != tcp.Acceptor && g.States[tcp.TimeWait] > 0 {
		how = snapshot.Inferred
		if r.sightings.of(watchKey{ns.door, g.Key}) != nil ||
			ns.rose("TcpExtTW") >= watchedFrom && ns.facts.States.Live() <= watchedSockets {
			// TIME_WAIT is made meanwhile, and not of the connections that are kept.
			return r.inferred(ns, g.Key, g.ClosesGoOn())
		}
	}
	owners := r.owners.named(r.owners.sampled(g.Inodes), how, len(g.Inodes.Inodes), tcp.StatesOf(g.States).Live())
	if len(owners) == 0 && g.Role != tcp.Acceptor {
		owners = r.inferred(ns, g.Key, g.ClosesGoOn())
	}
	return owners
}

// otherParityOwners are those of a connector's live sockets whose source port has the
// parity that bind() prefers.
func (b *ownerBook) otherParityOwners(g *group.Group) []snapshot.Owner {
	s := g.OtherParityInodes
	if s == nil || g.Role == tcp.Acceptor {
		return nil
	}
	return b.named(b.sampled(*s), snapshot.Seen, len(s.Inodes), int(s.Seen))
}

// listening are the owners of the listener that accepts connections to an
// endpoint.
func (r *reading) listening(ns *namespace, addr tcp.Addr, port uint16) []snapshot.Owner {
	for _, position := range r.index.Covering(ns.index, addr, port) {
		if owners := r.owners.listener(ns, position); len(owners) > 0 {
			return owners
		}
	}
	return nil
}

// inferred are the owners of a connector's group that was watched. Where nothing
// was seen and closes go on, a namespace of one process leaves no choice; when they
// have ended, so may have the process that made them.
func (r *reading) inferred(ns *namespace, key group.Key, goesOn bool) []snapshot.Owner {
	pids := r.sightings.of(watchKey{ns.door, key})
	if len(pids) == 0 && goesOn && ns.found.Processes == 1 && ns.facts.Label.Kind != snapshot.LabelHost {
		pid := int32(ns.found.PID)
		if p, err := r.proc.Process(ns.found.PID); err == nil {
			r.owners.processes[pid] = p
			pids = map[int32]int{pid: 0}
		}
	}
	return r.owners.named(pids, snapshot.Inferred, 0, 0)
}

// listener is the owner of one of the namespace's listeners.
func (b *ownerBook) listener(ns *namespace, at int) []snapshot.Owner {
	owner, known := b.byInode[uint64(ns.listenerInodes[at])]
	if !known {
		return nil
	}
	return b.named(map[int32]int{owner.PID: 0}, snapshot.Listening, 0, 0)
}

// named turns counts by process into owners. Of a sample of that size the counts
// are scaled to the total.
func (b *ownerBook) named(pids map[int32]int, how snapshot.How, sample, total int) []snapshot.Owner {
	owners := make([]snapshot.Owner, 0, len(pids))
	for pid, n := range pids {
		p, known := b.processes[pid]
		if !known {
			continue // ended since
		}
		if sample > 0 {
			n = (n*total + sample/2) / sample
		}
		owners = append(owners, snapshot.Owner{
			Process: p.Comm, PID: int(pid), Started: p.Started,
			Container: p.Container, Pod: p.Pod,
			How: how, Sockets: n,
			Descriptors: p.Descriptors, DescriptorLimit: p.DescriptorLimit,
		})
	}
	slices.SortFunc(owners, func(a, b snapshot.Owner) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), cmp.Compare(a.PID, b.PID))
	})
	return slices.Clip(owners[:min(len(owners), ownersTold)])
}
