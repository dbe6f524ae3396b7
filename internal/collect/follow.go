package collect

import (
	"cmp"
	"context"
	"slices"
	"time"

	"linger/internal/kernel/sockdiag"
	"linger/internal/kernel/trace"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// makersKept is how many makers of TIME_WAIT sockets are remembered, 27 MB of them.
const makersKept = 1 << 18

// tracedGroupsKept is how many groups of a namespace are told as they were traced.
const tracedGroupsKept = 20

// followed is what was seen of connections before the sockets were read.
type followed struct {
	programs map[followedKey][]snapshot.TracedGroup
	makers   map[trace.Socket]trace.Owner
}

// followedKey is a group, as the sockets tell it.
type followedKey struct {
	netns trace.Netns
	role  tcp.Role
	groupKey
}

// follow has the kernel follow connections for a time. Where it cannot, that is a gap, and the
// owners are inferred as ever.
func (r *reading) follow(ctx context.Context, during time.Duration) {
	t := newTrace(TraceOptions{})
	t.remember(r, r)
	r.findListeners(ctx)
	err := t.load(trace.Options{Listeners: r.listenersToTrace(), MaxOwners: makersKept})
	if err != nil {
		r.gap("", "who opens and closes connections", traceNeeds(err), err)
		return
	}
	defer t.Close()
	if err := t.tracer.Missing(); err != nil {
		r.gap("", "who made each TIME_WAIT socket", "kernel 5.12", err)
	}
	start := time.Now()
	wait(ctx, start.Add(during))
	// In this order no more sockets are made than are closed.
	makers, err := t.tracer.Owners()
	seen := &snapshot.Traced{}
	if err == nil {
		seen, err = t.Read(ctx)
	}
	if err != nil {
		r.gap("", "who opens and closes connections", "BPF maps that can be read", err)
		return
	}
	r.followed.makers = makers
	r.snapshot.TracedMS = max(1, time.Since(start).Milliseconds())
	r.followed.programs = map[followedKey][]snapshot.TracedGroup{}
	for _, g := range seen.Groups {
		if g.Role == tcp.RoleUnknown || g.None() {
			continue
		}
		key := followedKey{netns: trace.Netns(g.NetnsCookie), role: g.Role}
		key.local = sockdiag.Addr(g.Local.Addr.As16())
		key.port = g.Local.Port
		if g.Role == tcp.Connector {
			key.remote, key.port = sockdiag.Addr(g.Remote.Addr.As16()), g.Remote.Port
		}
		r.followed.programs[key] = append(r.followed.programs[key], g)
	}
	for _, ns := range r.namespaces {
		var sum snapshot.TracedCounts
		var groups []snapshot.TracedGroup
		for key, programs := range r.followed.programs {
			if key.netns == ns.traceID() {
				groups = append(groups, programs...)
			}
		}
		for i := range groups {
			sum.Add(&groups[i].TracedCounts)
		}
		slices.SortFunc(groups, func(a, b snapshot.TracedGroup) int {
			return cmp.Or(cmp.Compare(busy(&b.TracedCounts), busy(&a.TracedCounts)), cmp.Compare(a.Process, b.Process), cmp.Compare(a.Role, b.Role))
		})
		ns.facts.TracedGroups = slices.Clip(groups[:min(len(groups), tracedGroupsKept)])
		if !sum.None() {
			ns.facts.Traced = sum.Sums()
		}
	}
}

// makersOf tells who made a time-wait socket of a namespace, nil where nothing was traced.
func (r *reading) makersOf(ns *namespace) func(*sockdiag.Socket) (maker, bool) {
	if len(r.followed.makers) == 0 {
		return nil
	}
	id := ns.traceID()
	return func(s *sockdiag.Socket) (maker, bool) {
		owner, known := r.followed.makers[trace.Socket{Netns: id, Cookie: s.Cookie}]
		return maker{owner.Process, owner.Cgroup}, known
	}
}

// seen are the programs that were seen to open or close connections of a group, the busiest
// first, and the sum of what they did. g is nil where no socket of it is left.
func (r *reading) seen(ns *namespace, role tcp.Role, key groupKey, g *group) ([]snapshot.Owner, *snapshot.TracedSums) {
	programs := r.followed.programs[followedKey{ns.traceID(), role, key}]
	if len(programs) == 0 {
		return nil, nil
	}
	var sum snapshot.TracedCounts
	byMaker := map[maker]*snapshot.Owner{}
	var owners []*snapshot.Owner
	for _, p := range programs {
		sum.Add(&p.TracedCounts)
		if p.Process == "" {
			continue // before the tracing, and nobody at work
		}
		m := maker{p.Process, p.Cgroup}
		o := byMaker[m]
		if o == nil {
			o = &snapshot.Owner{Process: p.Process, PID: p.PID, Container: p.Container, Pod: p.Pod, How: snapshot.Seen, Traced: &snapshot.TracedSums{}}
			byMaker[m] = o
			owners = append(owners, o)
			if g != nil {
				o.Sockets = g.makers[m]
			}
			if now, err := proc.Process(p.PID); err == nil && now.Comm == p.Process {
				o.Started, o.Descriptors, o.DescriptorLimit = now.Started, now.Descriptors, now.DescriptorLimit
			}
		}
		o.Traced.Add(&p.TracedCounts)
	}
	slices.SortStableFunc(owners, func(a, b *snapshot.Owner) int {
		return cmp.Or(cmp.Compare(busy(&b.Traced.TracedCounts), busy(&a.Traced.TracedCounts)), cmp.Compare(a.Process, b.Process))
	})
	told := make([]snapshot.Owner, 0, ownersKept)
	for _, o := range owners[:min(len(owners), ownersKept)] {
		o.Traced.Spreads = o.Traced.Spread()
		told = append(told, *o)
	}
	return told, sum.Sums()
}

// busy is how much a program did.
func busy(t *snapshot.TracedCounts) uint64 { return t.Opens + t.Ended() + t.Failures() }
