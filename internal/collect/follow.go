package collect

import (
	"cmp"
	"context"
	"slices"
	"time"

	"linger/internal/kernel/trace"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// makersRemembered is how many makers of TIME_WAIT sockets are remembered, 27 MB of them.
const makersRemembered = 1 << 18

// tracedGroupsTold is how many groups of a namespace are told as they were traced.
const tracedGroupsTold = 20

// followed is what was seen of connections before the sockets were read.
type followed struct {
	programs map[followedKey][]snapshot.TracedGroup
	makers   map[trace.Socket]trace.Owner
}

// followedKey is a group, as the sockets tell it.
type followedKey struct {
	netns trace.Netns
	role  tcp.Role
	group.Key
}

// attachTracer has the kernel follow connections from now on. Where it cannot, that is a gap of
// each reading, and the owners are inferred as ever.
func (s *Session) attachTracer(ctx context.Context) error {
	failed := func(what, needs string, err error) {
		s.traceGaps = append(s.traceGaps, gap{what: what, needs: needs, cause: err})
	}
	r, err := s.begin(ctx)
	if err != nil {
		return err
	}
	t := newTrace(TraceOptions{})
	t.proc = s.proc
	t.remember(r.namespaces, nil)
	r.findListeners(ctx)
	err = t.load(trace.Options{Listeners: r.listenersToTrace(), MaxOwners: makersRemembered})
	if err != nil {
		failed("who opens and closes connections", traceNeeds(err), err)
		return nil
	}
	s.trace = t
	if err := t.tracer.Missing(); err != nil {
		failed("who made each TIME_WAIT socket", "kernel 5.12", err)
	}
	return nil
}

// readTraced reads what was traced so far.
func (r *reading) readTraced(ctx context.Context) {
	t := r.trace
	if t == nil {
		return
	}
	t.remember(r.namespaces, nil)
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
	r.snapshot.TracedMS = max(1, time.Since(t.began).Milliseconds())
	r.followed.programs = map[followedKey][]snapshot.TracedGroup{}
	for _, g := range seen.Groups {
		if g.Role == tcp.RoleUnknown || g.None() {
			continue
		}
		key := followedKey{netns: trace.Netns(g.NetnsCookie), role: g.Role}
		key.Local = tcp.Addr(g.Local.Addr.As16())
		key.Port = g.Local.Port
		if g.Role == tcp.Connector {
			key.Remote, key.Port = tcp.Addr(g.Remote.Addr.As16()), g.Remote.Port
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
		ns.facts.TracedGroups = slices.Clip(groups[:min(len(groups), tracedGroupsTold)])
		if !sum.None() {
			ns.facts.Traced = sum.Sums()
		}
	}
}

// makersOf tells who made a time-wait socket of a namespace, nil where nothing was traced.
func (r *reading) makersOf(ns *namespace) func(*tcp.Socket) (group.Maker, bool) {
	if len(r.followed.makers) == 0 {
		return nil
	}
	id := ns.traceID()
	return func(s *tcp.Socket) (group.Maker, bool) {
		owner, known := r.followed.makers[trace.Socket{Netns: id, Cookie: s.Cookie}]
		return group.Maker{Process: owner.Process, Cgroup: owner.Cgroup}, known
	}
}

// seen are the programs that were seen to open or close connections of a group, the busiest
// first, and the sum of what they did. g is nil where no socket of it is left.
func (r *reading) seen(ns *namespace, role tcp.Role, key group.Key, g *group.Group) ([]snapshot.Owner, *snapshot.TracedSums) {
	programs := r.followed.programs[followedKey{ns.traceID(), role, key}]
	if len(programs) == 0 {
		return nil, nil
	}
	var sum snapshot.TracedCounts
	byMaker := map[group.Maker]*snapshot.Owner{}
	var owners []*snapshot.Owner
	for _, p := range programs {
		sum.Add(&p.TracedCounts)
		if p.Process == "" {
			continue // before the tracing, and nobody at work
		}
		m := group.Maker{Process: p.Process, Cgroup: p.Cgroup}
		o := byMaker[m]
		if o == nil {
			o = &snapshot.Owner{
				Process: p.Process, PID: p.PID, Container: p.Container, Pod: p.Pod,
				How: snapshot.Seen, Traced: &snapshot.TracedSums{},
			}
			byMaker[m] = o
			owners = append(owners, o)
			if g != nil {
				o.Sockets = g.Makers[m]
			}
			if now, err := r.proc.Process(p.PID); err == nil && now.Comm == p.Process {
				o.Started, o.Descriptors, o.DescriptorLimit = now.Started, now.Descriptors, now.DescriptorLimit
			}
		}
		o.Traced.Add(&p.TracedCounts)
	}
	slices.SortStableFunc(owners, func(a, b *snapshot.Owner) int {
		return cmp.Or(cmp.Compare(busy(&b.Traced.TracedCounts), busy(&a.Traced.TracedCounts)), cmp.Compare(a.Process, b.Process))
	})
	told := make([]snapshot.Owner, 0, ownersTold)
	for _, o := range owners[:min(len(owners), ownersTold)] {
		o.Traced.Spreads = o.Traced.Spread()
		told = append(told, *o)
	}
	return told, sum.Sums()
}

// traceRole is the role in which tracing knows a group.
func traceRole(g *group.Group) tcp.Role {
	if g.Role == tcp.Acceptor {
		return tcp.Acceptor
	}
	return tcp.Connector
}

// busy is how much a program did.
func busy(t *snapshot.TracedCounts) uint64 { return t.Opens + t.Ended() + t.Failures() }
