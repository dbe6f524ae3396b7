package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/process"
	"linger/internal/kernel/trace"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TraceOptions say what to follow.
type TraceOptions struct {
	// Netns names namespaces as Options does; connections of others are left out.
	Netns []string
	// Command follows only what processes open that this process starts from then on, and
	// those that they start.
	Command bool
	// Events lets single ends be read, those that pass.
	Events *EventFilter
}

// EventFilter says which ends of connections to tell; a field of its zero value lets all pass.
type EventFilter struct {
	Process   string
	Role      tcp.Role
	Port      uint16       // of either end
	Remote    netip.Prefix // that holds the remote address
	LeastLife time.Duration
	Endings   []string // of EndingNames
}

// EndingNames are the words for how connections end, and for why connect() fails.
func EndingNames() []string {
	var names []string
	for e := trace.ClosedHere; int(e) < trace.Endings; e++ {
		names = append(names, e.String())
	}
	return names
}

// Trace follows connections in the kernel until it is closed. Its methods may be called by several
// goroutines.
type Trace struct {
	mu      sync.Mutex // of what follows
	tracer  *trace.Tracer
	began   time.Time
	options TraceOptions
	session *Session // of all namespaces, nil where another session has the trace
	proc    process.Tree

	places    map[trace.Netns]place
	processes map[uint32]process.Label // by pid
	// containers are by cgroup, which outlives the processes in it.
	containers map[uint64]process.Label
	cgroups    *process.Cgroups // nil where they cannot be found by their numbers
	past       snapshot.TracedCounts
}

// place is a namespace.
type place struct {
	label  string
	wanted bool
}

// StartTrace begins to follow connections. The error says what is missing where that cannot
// be: the rights, or the kernel's support.
func StartTrace(ctx context.Context, o TraceOptions) (*Trace, error) {
	s, err := Open(ctx, Options{})
	if err != nil {
		return nil, err
	}
	t := newTrace(o)
	t.session, t.proc = s, s.proc
	listeners, err := t.survey(ctx)
	if err == nil {
		err = t.load(trace.Options{Family: o.Command, Listeners: listeners})
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return t, nil
}

func newTrace(o TraceOptions) *Trace {
	return &Trace{options: o, processes: map[uint32]process.Label{}, containers: map[uint64]process.Label{}}
}

func (t *Trace) load(o trace.Options) (err error) {
	if f := t.options.Events; f != nil {
		o.Events = &trace.Filter{Process: f.Process, Role: f.Role, Port: f.Port, Remote: f.Remote, LeastLife: f.LeastLife}
		for _, name := range f.Endings {
			o.Events.Endings = append(o.Events.Endings, trace.Ending(slices.Index(EndingNames(), name)+1))
		}
	}
	o.Netns = t.wanted()
	if t.tracer, err = trace.Load(o); err != nil {
		return fmt.Errorf("trace connections: %w (needs %s)", err, traceNeeds(err))
	}
	t.cgroups, _ = t.proc.OpenCgroups() // without them containers are found by processes, while these live
	t.began = time.Now()
	return nil
}

// traceNeeds is what would make tracing possible.
func traceNeeds(err error) string {
	if errors.Is(err, trace.ErrForbidden) {
		return needsRights("CAP_BPF and CAP_PERFMON")
	}
	return "kernel 5.8 with CONFIG_DEBUG_INFO_BTF"
}

// wanted are the namespaces that were chosen, none where that is all.
func (t *Trace) wanted() (wanted []trace.Netns) {
	for id, p := range t.places {
		if p.wanted && len(t.options.Netns) > 0 {
			wanted = append(wanted, id)
		}
	}
	return wanted
}

// survey reads which namespaces there are, and who listens in them.
func (t *Trace) survey(ctx context.Context) ([]trace.Listener, error) {
	// A trace may last for days, and must not keep namespaces that are deleted.
	defer t.session.letGo()
	r, err := t.session.begin(ctx)
	if err != nil {
		return nil, err
	}
	chosen, _, err := t.session.choose(t.options.Netns)
	if err != nil {
		return nil, err
	}
	t.remember(r.namespaces, chosen)
	r.findListeners(ctx)
	return r.listenersToTrace(), nil
}

// remember takes note of the namespaces' labels, and of those that were chosen; nil is all.
func (t *Trace) remember(namespaces []*namespace, chosen []netns.Found) {
	t.places = map[trace.Netns]place{}
	for _, ns := range namespaces {
		wanted := chosen == nil || slices.ContainsFunc(chosen, func(f netns.Found) bool { return f.Inode == ns.facts.Inode })
		t.places[ns.traceID()] = place{ns.label(), wanted}
	}
}

// traceID is how tracing names a namespace.
func (ns *namespace) traceID() trace.Netns {
	return trace.Netns(cmp.Or(ns.facts.Cookie, ns.facts.Inode))
}

// findListeners asks for the owners of all listeners.
func (r *reading) findListeners(ctx context.Context) {
	r.owners = newOwnerBook()
	wanted := map[uint64]struct{}{}
	for _, ns := range r.namespaces {
		for _, inode := range ns.listenerInodes {
			wanted[uint64(inode)] = struct{}{}
		}
	}
	// What may not be read is named as a gap by who looks for all owners, or costs a name.
	found, _ := r.proc.Owners(ctx, wanted)
	r.owners.learn(found)
}

// listenersToTrace name the owners of accepted connections.
func (r *reading) listenersToTrace() (listeners []trace.Listener) {
	for _, ns := range r.namespaces {
		for i, l := range ns.facts.Listeners {
			owner, known := r.owners.byInode[uint64(ns.listenerInodes[i])]
			if !known {
				continue
			}
			listeners = append(listeners, trace.Listener{
				Netns: ns.traceID(), Local: l.Local, Process: r.owners.processes[owner.PID].Comm, PID: uint32(owner.PID),
			})
		}
	}
	return listeners
}

// Close ends it.
func (t *Trace) Close() error {
	if t.cgroups != nil {
		t.cgroups.Close()
	}
	err := t.tracer.Close()
	if t.session != nil {
		err = errors.Join(err, t.session.Close())
	}
	return err
}

// Beginning is a reading of before anything was counted.
func (t *Trace) Beginning() *snapshot.Traced { return &snapshot.Traced{Began: t.began} }

// Read tells all that was counted since the beginning. It wants to be called every few seconds: so
// that the kernel's groups, when they become few, go from programs that have ended to those that
// come.
func (t *Trace) Read(ctx context.Context) (*snapshot.Traced, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &snapshot.Traced{Began: t.began, MS: max(1, time.Since(t.began).Milliseconds())}
	if missed, err := t.tracer.Missed(); err == nil {
		out.Missed = &missed
	}
	var groups []trace.Group
	unknown := false
	err := t.tracer.Groups(func(g *trace.Group) {
		if _, known := t.places[g.Netns]; !known && g.Number > 0 {
			unknown = true
		}
		groups = append(groups, *g)
	})
	if err != nil {
		return nil, err
	}
	if unknown {
		t.surveyAgain(ctx)
	}
	for i := range groups {
		g := &groups[i]
		if g.Number == 0 {
			out.Other = t.counts(&g.Counts, g.Live)
			continue
		}
		where := t.place(g.Netns, g.NetnsInode)
		if !where.wanted {
			continue
		}
		if g.Gone {
			past := t.counts(&g.Counts, 0)
			t.past.Add(&past)
			continue
		}
		who := t.who(g.PID, g.Process, g.Cgroup)
		out.Groups = append(out.Groups, snapshot.TracedGroup{
			TracedKey: snapshot.TracedKey{
				Process: g.Process, Role: g.Role, Local: g.Local, Remote: g.Remote,
				NetnsCookie: uint64(g.Netns), Cgroup: g.Cgroup, Serial: g.Serial,
			},
			PID: int(g.PID), Container: who.Container, Pod: who.Pod, Netns: where.label,
			TracedCounts: t.counts(&g.Counts, g.Live),
		})
	}
	out.Past.Add(&t.past)
	return out, nil
}

// surveyAgain is for namespaces that came since. One that is gone already keeps its number.
func (t *Trace) surveyAgain(ctx context.Context) {
	if t.session == nil {
		return // its session knows all that it chose
	}
	before := t.places
	if _, err := t.survey(ctx); err != nil {
		t.places = before
	}
	for id, p := range before {
		if _, known := t.places[id]; !known {
			t.places[id] = p
		}
	}
}

func (t *Trace) place(id trace.Netns, inode uint32) place {
	p, known := t.places[id]
	if !known {
		p = place{label: fmt.Sprintf("net:[%d]", inode), wanted: len(t.options.Netns) == 0}
		t.places[id] = p
	}
	return p
}

// rootCgroup is the inode number of the root of cgroup2 (KERNFS_ROOT_INO).
const rootCgroup = 1

// labelsRemembered bounds what is remembered of processes and cgroups, which come and go.
const labelsRemembered = 1 << 16

// who finds the container of a process that may have ended: by the cgroup of its sockets, which is
// there as long as the container is. Where containers are in cgroups of the first version, which
// sockets do not know, the process must still be there.
func (t *Trace) who(pid uint32, name string, cgroup uint64) process.Label {
	if cgroup > rootCgroup {
		label, known := t.containers[cgroup]
		if !known && t.cgroups != nil {
			label.Container, label.Pod, _ = t.cgroups.Owner(cgroup)
			keep(t.containers, cgroup, label)
		}
		if label != (process.Label{}) {
			return label
		}
	}
	label, known := t.processes[pid]
	if !known && pid > 0 {
		if read, err := t.proc.Label(int(pid)); err == nil && read.Comm == name {
			label = read
		}
		keep(t.processes, pid, label)
		if cgroup > rootCgroup && label.PID != 0 {
			keep(t.containers, cgroup, label)
		}
	}
	return label
}

func keep[K comparable](labels map[K]process.Label, key K, label process.Label) {
	if len(labels) >= labelsRemembered {
		clear(labels)
	}
	labels[key] = label
}

func (t *Trace) counts(c *trace.Counts, live uint32) snapshot.TracedCounts {
	out := snapshot.TracedCounts{
		Opens:      c.Opened,
		ClosedHere: c.Endings[trace.ClosedHere], ClosedThere: c.Endings[trace.ClosedThere],
		AbortedHere: c.Endings[trace.Aborted], ResetThere: c.Endings[trace.ResetThere], TimedOut: c.Endings[trace.TimedOut],
		Failed: map[string]uint64{}, Resets: snapshot.Resets{Sent: map[string]uint64{}, Received: c.ResetsReceived},
		Bound: c.Bound, TimeWait: c.ToTimeWait, FinWait2: c.ToFinWait2,
		BytesSent: c.BytesSent, BytesReceived: c.BytesReceived, Live: uint64(live), Untimed: c.Untimed,
	}
	for e := range trace.Ending(trace.Endings) {
		if n := c.Endings[e]; e.Failed() && n > 0 {
			out.Failed[e.String()] = n
		}
	}
	for number, n := range c.ResetsSent {
		if n > 0 {
			out.Resets.Sent[t.tracer.Reason(number)] += n
		}
	}
	out.Lives = histogram(c.Life[:], trace.LifeStep)
	out.Sent, out.Received = histogram(c.SizeSent[:], trace.SizeStep), histogram(c.SizeReceived[:], trace.SizeStep)
	return out
}

// histogram is of steps, of which least tells the least value.
func histogram(steps []uint32, least func(step int) uint64) (out snapshot.Histogram) {
	for step, n := range steps {
		if n > 0 {
			out = append(out, snapshot.Bin{Least: least(step), N: uint64(n)})
		}
	}
	return out
}

// Events calls visit for each end of a connection, until ctx is cancelled, and returns how many
// ends no weight stands for.
func (t *Trace) Events(ctx context.Context, visit func(*snapshot.EndedConnection)) (untold uint64, err error) {
	return t.tracer.Events(ctx, func(e *trace.Event) {
		where, who := t.ofEvent(ctx, e)
		if !where.wanted {
			return
		}
		out := snapshot.EndedConnection{
			Ended: e.Ended, Process: e.Process, PID: int(e.PID), Container: who.Container, Pod: who.Pod,
			Netns: where.label, Role: e.Role,
			Local:  tcp.Endpoint{Addr: e.Local.Addr(), Port: e.Local.Port()},
			Remote: tcp.Endpoint{Addr: e.Remote.Addr(), Port: e.Remote.Port()},
			Ending: e.Ending.String(), Reason: e.Reason,
			BytesSent: e.BytesSent, BytesReceived: e.BytesReceived, Weight: e.Weight,
		}
		if e.Life > 0 {
			ms := float64(e.Life.Microseconds()) / 1000
			out.LifeMS = &ms
		}
		visit(&out)
	})
}

// ofEvent tells where an event belongs, and to whom.
func (t *Trace) ofEvent(ctx context.Context, e *trace.Event) (place, process.Label) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.places[e.Netns]; !known {
		t.surveyAgain(ctx)
	}
	where := t.place(e.Netns, e.NetnsInode)
	if !where.wanted {
		return where, process.Label{}
	}
	return where, t.who(e.PID, e.Process, e.Cgroup)
}
