package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"linger/internal/kernel/process"
	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

const (
	// ownersKept is how many owners of a group are reported, the busiest.
	ownersKept = 4
	// sightings is how many new connections of a group are seen in the hands of
	// processes before it is watched no more.
	sightings = 4
	// watchedFrom is how many TIME_WAIT sockets make a group worth watching for
	// the owner of its live sockets.
	watchedFrom = 20
	// watchedSockets is up to how many live sockets a namespace is looked at again
	// and again; where there are more, one look has shown enough.
	watchedSockets = 50_000
	// watchPause is the least time between two looks. A look that takes long is
	// followed by twice its time, so that watching takes a third of a CPU at most.
	watchPause = 20 * time.Millisecond
)

// ownerBook knows the processes behind sockets.
type ownerBook struct {
	byInode   map[uint64]process.Owner
	processes map[int32]process.Process
	// watched counts, for the groups that were watched, the connections that came or
	// went in the hands of each process.
	watched map[watchKey]map[int32]int
	// old are the inodes of CLOSE_WAIT sockets, by group.
	old map[*group]*oldCloseWait
}

// watchKey is a connector's group in a namespace; the group need not exist: when
// the acceptor closes first, the connector keeps no socket.
type watchKey struct {
	namespace int
	groupKey
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
		watched:   map[watchKey]map[int32]int{},
		old:       map[*group]*oldCloseWait{},
	}
}

// findOwners asks once for the owners of all listeners and of the sampled live
// sockets.
func (r *reading) findOwners(ctx context.Context) {
	r.owners = newOwnerBook()
	wanted := map[uint64]struct{}{}
	for _, ns := range r.namespaces {
		for _, inode := range ns.listenerInodes {
			wanted[uint64(inode)] = struct{}{}
		}
		for _, g := range ns.groups {
			for _, inode := range g.inodes.kept {
				wanted[uint64(inode)] = struct{}{}
			}
			if g.otherParityInodes != nil {
				for _, inode := range g.otherParityInodes.kept {
					wanted[uint64(inode)] = struct{}{}
				}
			}
		}
	}
	found, err := proc.Owners(ctx, wanted)
	r.owners.learn(found)
	if err != nil && ctx.Err() == nil {
		r.gap("", "owners of sockets", "a mounted /proc", err)
	}
	switch missing := len(wanted) - len(found.ByInode); {
	case missing == 0 || err != nil:
	case found.Unreadable > 0:
		r.gap("", "owners of some sockets", needsRights("CAP_SYS_PTRACE"), errUnreadable(found.Unreadable))
	case len(found.ByInode) == 0 || processesHidden():
		r.gap("", "owners of sockets", "a /proc that shows all processes (no hidepid, the host's PID namespace)",
			fmt.Errorf("%d of %d sockets belong to no process in /proc", missing, len(wanted)))
	}
}

// processesHidden tells whether /proc leaves out the processes of others, as it
// does when it is mounted with hidepid=2 (proc(5)): then it lacks the first of all.
func processesHidden() bool {
	_, err := os.Stat(string(proc) + "/1")
	return errors.Is(err, fs.ErrNotExist)
}

// watchForOwners looks, until the window ends, for processes that make new
// connections to where TIME_WAIT sockets are left. A connection that is already
// there says less: whoever keeps one is not who leaves TIME_WAIT behind.
func (r *reading) watchForOwners(ctx context.Context, until time.Time) {
	seen := map[watchKey]map[uint64]struct{}{}
	for ctx.Err() == nil {
		wanted := r.unwatched()
		if len(wanted) == 0 {
			return
		}
		start := time.Now()
		r.look(ctx, seen, wanted)
		pause := max(watchPause, 2*time.Since(start))
		if time.Now().Add(pause).After(until) {
			return
		}
		wait(ctx, time.Now().Add(pause))
	}
}

// unwatched are the connectors' groups that leave TIME_WAIT sockets, here or at the
// acceptor, and whose new connections were not seen often enough.
func (r *reading) unwatched() map[watchKey]bool {
	wanted := map[watchKey]bool{}
	want := func(key watchKey) {
		seen := 0
		for _, n := range r.owners.watched[key] {
			seen += n
		}
		if seen < sightings {
			wanted[key] = true
		}
	}
	for _, ns := range r.namespaces {
		for _, g := range ns.groups {
			if g.states[tcp.TimeWait] < watchedFrom {
				continue
			}
			if g.role != tcp.Acceptor {
				want(watchKey{ns.index, g.key})
				continue
			}
			for addr, n := range g.clients.byAddr {
				if n.timeWait < watchedFrom {
					continue
				}
				if from, known := r.index.only(ns.index, addr); known {
					want(watchKey{from, groupKey{addr, g.key.local, g.key.port}})
				}
			}
		}
	}
	return wanted
}

// look dumps the live sockets of the namespaces in question once, and asks for
// the owners of those that belong to a wanted group and were not there at the
// look before, whose inodes are in seen.
func (r *reading) look(ctx context.Context, seen map[watchKey]map[uint64]struct{}, wanted map[watchKey]bool) {
	namespaces := map[int]bool{}
	for key := range wanted {
		namespaces[key.namespace] = true
	}
	groupOf := map[uint64]watchKey{}
	inodes, netns := map[uint64]struct{}{}, map[uint64]struct{}{}
	for i := range namespaces {
		ns := r.namespaces[i]
		if ns.facts.States.Live() > watchedSockets {
			continue
		}
		if ns.sockets == nil {
			// A client whose peer closes first has no socket between two connections.
			var err error
			if ns.sockets, err = sockdiag.Dial(ns.handle.FD()); err != nil {
				continue
			}
		}
		now := map[watchKey]map[uint64]struct{}{}
		// A failure here loses a chance, nothing more.
		err := ns.sockets.Dump(ctx, sockdiag.Request{States: liveStates}, func(s *sockdiag.Socket) {
			key := watchKey{i, groupKey{s.Local, s.Remote, s.RemotePort}}
			if s.Inode == 0 || !wanted[key] {
				return
			}
			inode := uint64(s.Inode)
			if now[key] == nil {
				now[key] = map[uint64]struct{}{}
			}
			now[key][inode] = struct{}{}
			if before, looked := seen[key]; looked {
				if _, old := before[inode]; !old {
					groupOf[inode] = key
					inodes[inode] = struct{}{}
					netns[ns.facts.Inode] = struct{}{}
				}
			}
		})
		if err != nil {
			continue
		}
		for key := range wanted {
			if key.namespace == i {
				if _, looked := seen[key]; !looked {
					r.owners.countClosed(key, ns.connectors[key.groupKey], now[key])
				}
				seen[key] = now[key]
			}
		}
	}
	found, _ := proc.OwnersWithin(ctx, inodes, netns)
	r.owners.learn(found)
	for inode, owner := range found.ByInode {
		r.owners.sight(groupOf[inode], owner.PID)
	}
}

// countClosed counts those of a group's sample that the first look found closed.
func (b *ownerBook) countClosed(key watchKey, g *group, open map[uint64]struct{}) {
	if g == nil {
		return
	}
	for _, inode := range g.inodes.kept {
		owner, known := b.byInode[uint64(inode)]
		if _, still := open[uint64(inode)]; known && !still {
			b.sight(key, owner.PID)
		}
	}
}

func (b *ownerBook) sight(key watchKey, pid int32) {
	if b.watched[key] == nil {
		b.watched[key] = map[int32]int{}
	}
	b.watched[key][pid]++
}

// sampled counts the owners of a sample of live sockets.
func (b *ownerBook) sampled(s sample) map[int32]int {
	pids := map[int32]int{}
	for _, inode := range s.kept {
		if owner, known := b.byInode[uint64(inode)]; known {
			pids[owner.PID]++
		}
	}
	return pids
}

// ownersOf returns the owners of a group, the busiest first.
func (r *reading) ownersOf(ns *namespace, g *group) []snapshot.Owner {
	if owners, _ := r.seen(ns, g.traceRole(), g.key, g); len(owners) > 0 {
		return owners
	}
	if g.rule == tcp.ByLocalListener {
		if owners := r.listening(ns, g.key.local, g.key.port); len(owners) > 0 {
			return owners
		}
	}
	how := snapshot.Seen
	if g.role != tcp.Acceptor && g.states[tcp.TimeWait] > 0 {
		how = snapshot.Inferred
		key := watchKey{ns.index, g.key}
		made, _ := ns.facts.Counters.Rose("TcpExtTW")
		if len(r.owners.watched[key]) > 0 || made >= watchedFrom && ns.facts.States.Live() <= watchedSockets {
			// TIME_WAIT is made meanwhile, and not of the connections that are kept.
			return r.owners.inferred(ns, g.key, g.closesGoOn())
		}
	}
	owners := r.owners.named(r.owners.sampled(g.inodes), how, len(g.inodes.kept), widen(g.states).Live())
	if len(owners) == 0 && g.role != tcp.Acceptor {
		owners = r.owners.inferred(ns, g.key, g.closesGoOn())
	}
	return owners
}

// otherParityOwners are those of a connector's live sockets whose source port has the
// parity that bind() prefers.
func (b *ownerBook) otherParityOwners(g *group) []snapshot.Owner {
	s := g.otherParityInodes
	if s == nil || g.role == tcp.Acceptor {
		return nil
	}
	return b.named(b.sampled(*s), snapshot.Seen, len(s.kept), int(s.seen))
}

// listening are the owners of the listener that accepts connections to an
// endpoint.
func (r *reading) listening(ns *namespace, addr sockdiag.Addr, port uint16) []snapshot.Owner {
	for _, position := range r.index.covering(ns.index, addr, port) {
		if owners := r.owners.listener(ns, position); len(owners) > 0 {
			return owners
		}
	}
	return nil
}

// inferred are the owners of a connector's group that was watched. Where nothing
// was seen and closes go on, a namespace of one process leaves no choice; when they
// have ended, so may have the process that made them.
func (b *ownerBook) inferred(ns *namespace, key groupKey, goesOn bool) []snapshot.Owner {
	pids := b.watched[watchKey{ns.index, key}]
	if len(pids) == 0 && goesOn && ns.found.Processes == 1 && ns.facts.Label.Kind != snapshot.LabelHost {
		pid := int32(ns.found.PID)
		if p, err := proc.Process(ns.found.PID); err == nil {
			b.processes[pid] = p
			pids = map[int32]int{pid: 0}
		}
	}
	return b.named(pids, snapshot.Inferred, 0, 0)
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
	return slices.Clip(owners[:min(len(owners), ownersKept)])
}
