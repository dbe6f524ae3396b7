// Package collect asks the kernel rooms about every network namespace of a host
// and returns one snapshot, with what could not be read named as gaps. It judges
// nothing and changes nothing.
package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/process"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Options say what to read.
type Options struct {
	// Netns names the namespaces to read: names under /run/netns, process ids,
	// paths, or all, which is also what no name means.
	Netns []string
	// Window is the time between the two readings of the counters. Zero reads them
	// once, so that no rise is known.
	Window time.Duration
	// Trace is how long to have the kernel follow connections before the sockets are read; 0
	// does not. It lies within the window, which is at least as long then.
	Trace time.Duration
	// Services should listen, in the namespaces that Netns names, or in linger's own.
	Services []tcp.Endpoint
	// Progress is told what is done; it is called by one goroutine at a time.
	Progress func(done, total int, what string)
}

// ErrNoNamespace means that no chosen namespace could be read.
var ErrNoNamespace = errors.New("no chosen network namespace could be read")

// ErrUnknownNamespace means that Options.Netns names what does not exist.
var ErrUnknownNamespace = errors.New("no such network namespace")

// proc is where the proc file system is mounted.
const proc = process.Tree("/proc")

// Collect reads the host once. When ctx is cancelled it returns what it has,
// with a gap that says so.
func Collect(ctx context.Context, o Options) (*snapshot.Snapshot, error) {
	r := &reading{options: o, snapshot: snapshot.Snapshot{
		Schema:  snapshot.Schema,
		TakenAt: time.Now(),
		Gaps:    []snapshot.Gap{},
	}}
	if err := r.choose(); err != nil {
		return nil, err
	}
	defer r.close()

	windowStart := time.Now()
	windowEnd := windowStart.Add(max(o.Window, o.Trace))
	r.each("entering namespaces", func(ns *namespace) { r.enter(ctx, ns) })
	if err := r.dropUnread(); err != nil {
		return nil, err
	}
	r.readHost()
	r.index = newListenerIndex(r.namespaces)
	if o.Trace > 0 {
		r.follow(ctx, o.Trace)
	}
	room := groupRoom{free: maxGroupsOfHost}
	r.each("reading sockets", func(ns *namespace) { r.readSockets(ctx, ns, &room) })
	r.lookAtTimeWait(ctx)
	r.findOwners(ctx)
	if o.Window > 0 || o.Trace > 0 {
		r.watchForOwners(ctx, windowEnd)
		wait(ctx, windowEnd)
		// As long as it really was: longer where reading took its time, shorter where
		// it was interrupted.
		r.snapshot.WindowMS = max(1, time.Since(windowStart).Milliseconds())
		r.each("reading counters again", r.readAgain)
		r.readSoftnetAgain()
	}
	r.lookAtCloseWait(ctx)
	r.lookIntoTables(ctx)
	r.lookAtWanted(ctx)
	return r.finish(ctx), nil
}

// reading is one run of Collect.
type reading struct {
	options    Options
	snapshot   snapshot.Snapshot
	namespaces []*namespace
	index      *listenerIndex
	followed   followed
	owners     *ownerBook
	hostInode  uint64 // of the host's namespace, 0 if unknown

	mu sync.Mutex // guards snapshot.Gaps and calls of options.Progress
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

func (r *reading) close() {
	for _, ns := range r.namespaces {
		ns.close()
	}
}

// finish turns what was gathered into the snapshot.
func (r *reading) finish(ctx context.Context) *snapshot.Snapshot {
	if err := ctx.Err(); err != nil {
		r.gap("", "all of it", "to be left to end", fmt.Errorf("interrupted: %w", context.Cause(ctx)))
	}
	for _, ns := range r.namespaces {
		ns.facts.Groups = make([]snapshot.Group, len(ns.groups))
		lowerBound := ns.timeWaitLeftEarly()
		for i, g := range ns.groups {
			out := g.snapshot()
			if out.Closes != nil {
				out.Closes.LowerBound = lowerBound
			}
			out.Takeover = ns.takeovers[g]
			out.Owners = r.ownersOf(ns, g)
			out.OtherParityOwners = r.owners.otherParityOwners(g)
			_, out.Traced = r.seen(ns, g.traceRole(), g.key, g)
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
