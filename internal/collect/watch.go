package collect

import (
	"context"
	"time"

	"linger/internal/kernel/process"
	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

const (
	// sightedEnough is how many new connections of a group are seen in the hands of
	// processes before it is watched no more.
	sightedEnough = 4
	// sightedFor is how long they tell who leaves TIME_WAIT sockets: as long as these live.
	sightedFor = snapshot.HistorySeconds * time.Second
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

// watchKey is a connector's group in a namespace; the group need not exist: when
// the acceptor closes first, the connector keeps no socket.
type watchKey struct {
	door *door
	group.Key
}

// sightings are what a session saw of new connections to where TIME_WAIT sockets are left.
type sightings struct {
	// open are the inodes of a group's live sockets at the last look.
	open map[watchKey]map[uint64]struct{}
	// hands counts the connections that came or went in the hands of each process.
	hands     map[watchKey]*hands
	processes map[int32]process.Process
}

type hands struct {
	since time.Time
	pids  map[int32]int
}

func newSightings() *sightings {
	return &sightings{
		open:      map[watchKey]map[uint64]struct{}{},
		hands:     map[watchKey]*hands{},
		processes: map[int32]process.Process{},
	}
}

// of counts the connections of a group by process, nil where none was seen.
func (s *sightings) of(key watchKey) map[int32]int {
	if h := s.hands[key]; h != nil {
		return h.pids
	}
	return nil
}

func (s *sightings) add(key watchKey, pid int32, now time.Time) {
	h := s.hands[key]
	if h == nil {
		h = &hands{since: now, pids: map[int32]int{}}
		s.hands[key] = h
	}
	h.pids[pid]++
}

// forget lets go of what is too old, and of processes that nobody asks for any more.
func (s *sightings) forget(now time.Time) {
	named := map[int32]bool{}
	for key, h := range s.hands {
		if now.Sub(h.since) > sightedFor {
			delete(s.hands, key)
			continue
		}
		for pid := range h.pids {
			named[pid] = true
		}
	}
	for pid := range s.processes {
		if !named[pid] {
			delete(s.processes, pid)
		}
	}
}

// watchForOwners looks, until the window ends, for processes that make new
// connections to where TIME_WAIT sockets are left. A connection that is already
// there says less: whoever keeps one is not who leaves TIME_WAIT behind.
func (r *reading) watchForOwners(ctx context.Context, until time.Time) {
	for ctx.Err() == nil {
		wanted := r.unwatched()
		if len(wanted) == 0 {
			return
		}
		start := time.Now()
		r.look(ctx, wanted)
		pause := max(watchPause, 2*time.Since(start))
		if time.Now().Add(pause).After(until) {
			return
		}
		wait(ctx, time.Now().Add(pause))
	}
}

// sight looks once, and compares with the reading before.
func (r *reading) sight(ctx context.Context) {
	s := r.sightings
	s.forget(r.snapshot.TakenAt)
	wanted := r.unwatched()
	for key := range s.open {
		if wanted[key] == nil {
			delete(s.open, key)
		}
	}
	if len(wanted) > 0 {
		r.look(ctx, wanted)
	}
}

// unwatched are the connectors' groups that leave TIME_WAIT sockets, here or at the
// acceptor, and whose new connections were not seen often enough; with their namespaces.
func (r *reading) unwatched() map[watchKey]*namespace {
	wanted := map[watchKey]*namespace{}
	want := func(ns *namespace, k group.Key) {
		key, seen := watchKey{ns.door, k}, 0
		for _, n := range r.sightings.of(key) {
			seen += n
		}
		if seen < sightedEnough {
			wanted[key] = ns
		}
	}
	for _, ns := range r.namespaces {
		for _, g := range ns.sorted.Groups {
			if g.States[tcp.TimeWait] < watchedFrom {
				continue
			}
			if g.Role != tcp.Acceptor {
				want(ns, g.Key)
				continue
			}
			for addr, timeWait := range g.ClientsInTimeWait() {
				if timeWait < watchedFrom {
					continue
				}
				if from, known := r.index.Only(ns.index, addr); known {
					want(r.namespaces[from], group.Key{Local: addr, Remote: g.Local, Port: g.Port})
				}
			}
		}
	}
	return wanted
}

// look dumps the live sockets of the namespaces in question once, and asks for
// the owners of those that belong to a wanted group and were not there at the
// look before.
func (r *reading) look(ctx context.Context, wanted map[watchKey]*namespace) {
	namespaces := map[*namespace]bool{}
	for _, ns := range wanted {
		namespaces[ns] = true
	}
	s := r.sightings
	groupOf := map[uint64]watchKey{}
	inodes, netns := map[uint64]struct{}{}, map[uint64]struct{}{}
	for ns := range namespaces {
		if ns.facts.States.Live() > watchedSockets {
			continue
		}
		// A client whose peer closes first has no socket between two connections.
		ns.connected = true
		now := map[watchKey]map[uint64]struct{}{}
		// A failure here loses a chance, nothing more.
		err := ns.dump(ctx, sockdiag.Request{States: liveStates}, func(row *tcp.Socket) {
			key := watchKey{ns.door, group.ConnectorKey(row)}
			if row.Inode == 0 || wanted[key] == nil {
				return
			}
			inode := uint64(row.Inode)
			if now[key] == nil {
				now[key] = map[uint64]struct{}{}
			}
			now[key][inode] = struct{}{}
			if before, looked := s.open[key]; looked {
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
		for key, of := range wanted {
			if of == ns {
				if _, looked := s.open[key]; !looked {
					r.countClosed(key, ns.sorted.Connector(key.Key), now[key])
				}
				s.open[key] = now[key]
			}
		}
	}
	found, _ := r.proc.OwnersWithin(ctx, inodes, netns)
	r.owners.learn(found)
	for inode, owner := range found.ByInode {
		r.saw(groupOf[inode], owner.PID)
	}
}

// countClosed counts those of a group's sample that the first look found closed.
func (r *reading) countClosed(key watchKey, g *group.Group, open map[uint64]struct{}) {
	if g == nil {
		return
	}
	for _, inode := range g.Inodes.Inodes {
		owner, known := r.owners.byInode[uint64(inode)]
		if _, still := open[uint64(inode)]; known && !still {
			r.saw(key, owner.PID)
		}
	}
}

// saw takes note of a connection in the hands of a process.
func (r *reading) saw(key watchKey, pid int32) {
	r.sightings.add(key, pid, r.snapshot.TakenAt)
	if p, known := r.owners.processes[pid]; known {
		r.sightings.processes[pid] = p
	}
}
