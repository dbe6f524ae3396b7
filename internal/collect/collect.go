// Package collect asks the kernel rooms about every network namespace of a host
// and returns snapshots, with what could not be read named as gaps. It judges
// nothing and changes nothing.
package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/procnet"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// Options say what to read.
type Options struct {
	// Roots are where the host's files lie.
	Roots Roots
	// Netns names the namespaces to read: names under /run/netns, process ids,
	// paths, or all, which is also what no name means.
	Netns []string
	// Window is the time between the two readings of the counters by Collect. Zero reads them
	// once, so that no rise is known.
	Window time.Duration
	// Trace is how long Collect has the kernel follow connections before the sockets are read; 0
	// does not. It lies within the window, which is at least as long then. A Session for which
	// it is set, to whatever time, follows them from Open on.
	Trace time.Duration
	// Services should listen, in the namespaces that Netns names, or in linger's own.
	Services []tcp.Endpoint
	// Progress is told what is done; it is called by one goroutine at a time.
	Progress func(done, total int, what string)
}

// errNoNamespace means that no chosen namespace could be read.
var errNoNamespace = errors.New("no chosen network namespace could be read")

// ErrUnknownNamespace means that Options.Netns names what does not exist.
var ErrUnknownNamespace = errors.New("no such network namespace")

// Collect looks at the host once: what there is, and what rose in the window. While the window
// lasts it watches who makes connections. When ctx is cancelled it returns what it has, with a gap
// that says so.
func Collect(ctx context.Context, o Options) (*snapshot.Snapshot, error) {
	s, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	windowEnd := r.snapshot.TakenAt.Add(max(o.Window, o.Trace))
	if s.trace != nil {
		wait(ctx, s.trace.began.Add(o.Trace))
	}
	r.readConnections(ctx)
	if o.Window > 0 || o.Trace > 0 {
		r.watchForOwners(ctx, windowEnd)
		wait(ctx, windowEnd)
		between := snapshot.Between(r.counted(), r.countAgain())
		r.rose(between)
		r.tellRise(between)
	}
	r.lookAgain(ctx)
	return r.finish(ctx), nil
}

// Read returns the host as it is now, without waiting: counters are totals, and what takes a
// past is told from the readings before. When ctx is cancelled it returns what it has, with a gap
// that says so. It is an error where none is left of those that were chosen; a later
// Read may find some again.
func (s *Session) Read(ctx context.Context) (*snapshot.Snapshot, error) {
	r, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	r.readConnections(ctx)
	counted := r.counted()
	if s.before != nil {
		r.rose(snapshot.Between(s.before, counted))
	}
	s.before = counted
	r.sight(ctx)
	r.lookAgain(ctx)
	return r.finish(ctx), nil
}

// reading is one instant of a session while it is read.
type reading struct {
	*Session
	snapshot   snapshot.Snapshot
	namespaces []*namespace
	index      *group.Index
	followed   followed
	owners     *ownerBook

	mu sync.Mutex // guards snapshot.Gaps and calls of options.Progress
}

// begin reads all but the connections.
func (s *Session) begin(ctx context.Context) (*reading, error) {
	r := &reading{Session: s, snapshot: snapshot.Snapshot{
		Schema:  snapshot.Schema,
		TakenAt: time.Now(),
		Gaps:    []snapshot.Gap{},
	}}
	if !s.fresh {
		// A name that means nothing any more is of a namespace that is gone.
		if _, err := s.find(); err != nil {
			return nil, err
		}
	}
	s.fresh = false
	for _, g := range append(s.findGaps[:len(s.findGaps):len(s.findGaps)], s.traceGaps...) {
		r.gap(g.netns, g.what, g.needs, g.cause)
	}
	for i, d := range s.doors {
		ns := &namespace{index: i, door: d}
		ns.facts.Own = d.own
		ns.facts.Addresses, ns.facts.Listeners = []netip.Addr{}, []snapshot.Listener{}
		r.namespaces = append(r.namespaces, ns)
	}
	r.each("entering namespaces", func(ns *namespace) { r.enter(ctx, ns) })
	if err := r.dropUnread(); err != nil {
		return nil, err
	}
	r.readHost()
	var facts []*snapshot.Namespace
	for _, ns := range r.namespaces {
		facts = append(facts, &ns.facts)
	}
	r.index = group.NewIndex(facts)
	r.findStill()
	return r, nil
}

// readConnections reads what was traced, the sockets, and who has them.
func (r *reading) readConnections(ctx context.Context) {
	r.readTraced(ctx)
	room := groupRoom{free: maxGroupsOfHost}
	for _, ns := range r.namespaces {
		if ns.still {
			room.free -= len(ns.walked.sorted.Groups)
		}
	}
	r.each("reading sockets", func(ns *namespace) { r.readSockets(ctx, ns, &room) })
	r.lookAtTimeWait(ctx)
	r.findOwners(ctx)
}

// counted are the counters as they were read first.
func (r *reading) counted() *snapshot.Snapshot {
	out := &snapshot.Snapshot{TakenAt: r.snapshot.TakenAt}
	out.Host.BootID, out.Host.Softnet = r.snapshot.Host.BootID, r.snapshot.Host.Softnet
	for _, ns := range r.namespaces {
		out.Namespaces = append(out.Namespaces, ns.counted(ns.facts.Counters, ns.facts.Conntrack))
	}
	return out
}

func (ns *namespace) counted(counters snapshot.Counters, tracked *snapshot.Conntrack) snapshot.Namespace {
	return snapshot.Namespace{Cookie: ns.facts.Cookie, Inode: ns.facts.Inode, Counters: counters, Conntrack: tracked}
}

// countAgain reads the counters as they are now; a namespace whose counters cannot be read is
// left out.
func (r *reading) countAgain() *snapshot.Snapshot {
	out := &snapshot.Snapshot{TakenAt: time.Now()}
	out.Host.BootID = r.snapshot.Host.BootID
	r.each("reading counters again", func(ns *namespace) {
		counters, tracked, err := r.countersOf(ns)
		if err != nil {
			r.gap(ns.label(), "counters a second time", "a mounted /proc", err)
		}
		if counters != nil {
			again := ns.counted(snapshot.Counters{Total: counters}, tracked)
			r.mu.Lock()
			out.Namespaces = append(out.Namespaces, again)
			r.mu.Unlock()
		}
	})
	if softnet, err := procnet.ReadSoftnet(r.roots.Proc); err == nil {
		out.Host.Softnet = snapshot.Counters{Total: softnet}
	}
	return out
}

// rose takes note of what rose in each namespace.
func (r *reading) rose(between *snapshot.Interval) {
	for _, ns := range r.namespaces {
		if i := between.Namespace(ns.facts.Cookie, ns.facts.Inode); i != nil {
			ns.rise = i
		}
	}
}

// tellRise puts what rose into the snapshot, and the totals that belong to it.
func (r *reading) tellRise(between *snapshot.Interval) {
	// As long as it really was: longer where reading took its time, shorter where
	// it was interrupted.
	r.snapshot.WindowMS = max(1, between.Length.Milliseconds())
	if between.Softnet.Total != nil {
		r.snapshot.Host.Softnet = between.Softnet
	}
	for _, ns := range r.namespaces {
		if ns.rise == nil {
			continue
		}
		ns.facts.Counters = ns.rise.Counters
		if again := ns.rise.After.Conntrack; again != nil && ns.facts.Conntrack != nil {
			ns.facts.Conntrack = again
			ns.facts.Conntrack.Counters = ns.rise.Conntrack
		}
	}
}

// lookAgain looks closer at what the sockets and the counters gave a reason for.
func (r *reading) lookAgain(ctx context.Context) {
	r.lookAtCloseWait(ctx)
	r.lookIntoTables(ctx)
	r.lookAtWanted(ctx)
}

func (r *reading) gap(netns, what, needs string, cause error) {
	if errors.Is(cause, unix.EMFILE) || errors.Is(cause, unix.ENFILE) {
		needs = "a higher limit of open files (ulimit -n)"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot.Gaps = append(r.snapshot.Gaps, snapshot.Gap{What: what, Netns: netns, Cause: cause.Error(), Needs: needs})
}

// each runs fn for every namespace, as many at a time as there are CPUs.
func (r *reading) each(what string, fn func(*namespace)) {
	next := make(chan *namespace)
	done := 0
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(r.namespaces)) {
		workers.Go(func() {
			for ns := range next {
				fn(ns)
				r.mu.Lock()
				done++
				if r.options.Progress != nil {
					r.options.Progress(done, len(r.namespaces), what)
				}
				r.mu.Unlock()
			}
		})
	}
	for _, ns := range r.namespaces {
		next <- ns
	}
	close(next)
	workers.Wait()
}

func wait(ctx context.Context, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// finish turns what was gathered into the snapshot.
func (r *reading) finish(ctx context.Context) *snapshot.Snapshot {
	if err := ctx.Err(); err != nil {
		r.gap("", "all of it", "to be left to end", fmt.Errorf("interrupted: %w", context.Cause(ctx)))
	}
	for _, ns := range r.namespaces {
		ns.facts.Groups = make([]snapshot.Group, len(ns.sorted.Groups))
		lowerBound := ns.timeWaitLeftEarly()
		for i, g := range ns.sorted.Groups {
			out := g.Snapshot()
			if out.Closes != nil {
				out.Closes.LowerBound = lowerBound
			}
			out.Takeover = ns.takeovers[g]
			out.Owners = r.ownersOf(ns, g)
			out.OtherParityOwners = r.owners.otherParityOwners(g)
			_, out.Traced = r.seen(ns, traceRole(g), g.Key, g)
			out.CloseWait = r.owners.closeWait(g)
			ns.facts.Groups[i] = out
		}
		for i := range ns.facts.Listeners {
			ns.facts.Listeners[i].Owners = r.owners.listener(ns, i)
		}
	}
	r.join()
	r.snapshot.Namespaces = make([]snapshot.Namespace, len(r.namespaces))
	for i, ns := range r.namespaces {
		r.snapshot.Namespaces[i] = ns.facts
	}
	slices.SortFunc(r.snapshot.Gaps, func(a, b snapshot.Gap) int {
		return cmp.Or(cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.What, b.What), cmp.Compare(a.Cause, b.Cause))
	})
	return &r.snapshot
}
