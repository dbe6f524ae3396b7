package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ListOptions say which sockets to list. Of what is empty all are listed.
type ListOptions struct {
	// Netns is as in Options.
	Netns []string
	// States without any are all but BOUND_INACTIVE, which the kernel looks for among
	// all bound sockets.
	States        []tcp.State
	Local, Remote []tcp.Match
	// Ports are of either end.
	Ports []uint16
	Roles []tcp.Role
}

// batchSize is how many sockets are kept at a time to ask for their owners: that
// is a walk over all descriptors of the host, and must not be made for each socket.
const batchSize = 16 << 10

// List calls visit for each socket, one namespace after the other, and returns what
// could not be read. It keeps at most batchSize sockets, however many there are.
// The kernel itself leaves out what the options do not ask for, but for roles. When visit
// fails List stops with its error; when ctx is cancelled it ends with a gap.
func List(ctx context.Context, o ListOptions, visit func(*snapshot.Socket) error) ([]snapshot.Gap, error) {
	s, err := Open(ctx, Options{Netns: o.Netns})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}

	l := listing{reading: r, options: o, visit: visit}
	l.request = sockdiag.Request{
		States: o.States,
		Filter: sockdiag.Filter{Local: o.Local, Remote: o.Remote, Ports: o.Ports},
	}
	if len(l.request.States) == 0 {
		l.request.States = append([]tcp.State{tcp.Listen, tcp.Close}, connections...)
	}
	for _, ns := range r.namespaces {
		if err := l.namespace(ctx, ns); err != nil {
			return nil, err
		}
	}
	switch {
	case ctx.Err() != nil:
		r.gap("", "all of it", "to be left to end", fmt.Errorf("interrupted: %w", context.Cause(ctx)))
	case l.unreadable > 0:
		r.gap("", "owners of some sockets", needsRights("CAP_SYS_PTRACE"), errUnreadable(l.unreadable))
	case l.missing > 0 && s.processesHidden():
		r.gap("", "owners of sockets", "a /proc that shows all processes (no hidepid, the host's PID namespace)",
			fmt.Errorf("%d sockets belong to no process in /proc", l.missing))
	}
	return r.snapshot.Gaps, nil
}

// listing is one run of List.
type listing struct {
	reading *reading
	options ListOptions
	request sockdiag.Request
	visit   func(*snapshot.Socket) error

	batch []tcp.Socket
	// missing counts the sockets with a file whose owner was not found, unreadable the
	// processes that did not show theirs.
	missing, unreadable int
}

// empty tells whether a namespace has nothing that is listed: to look for sockets in
// the table that all namespaces share takes long beside a busy one.
func (l *listing) empty(ns *namespace) bool {
	s := ns.facts.Sockstat
	return s != nil && s.InUse4+s.InUse6+s.TimeWait == 0 && !slices.Contains(l.request.States, tcp.BoundInactive)
}

func (l *listing) namespace(ctx context.Context, ns *namespace) error {
	if l.empty(ns) || ctx.Err() != nil {
		return nil
	}
	err := l.dump(ctx, ns)
	var stopped *stoppedError
	switch {
	case errors.As(err, &stopped):
		return stopped.error
	case err != nil && ctx.Err() == nil:
		l.reading.gap(ns.label(), "some of the sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
	}
	return nil
}

// stoppedError is what visit returned.
type stoppedError struct{ error }

func (l *listing) dump(ctx context.Context, ns *namespace) error {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tell := func() {
		if err := l.tell(within, ns); err != nil {
			stop(&stoppedError{err})
		}
	}
	err := ns.dump(within, l.request, func(s *tcp.Socket) {
		if within.Err() != nil || !l.wants(ns, s) {
			return
		}
		if l.batch = append(l.batch, *s); len(l.batch) == batchSize {
			tell()
		}
	})
	if within.Err() == nil || ctx.Err() != nil { // what came before an interrupt is told
		tell()
	}
	return cmp.Or(context.Cause(within), err)
}

func (l *listing) wants(ns *namespace, s *tcp.Socket) bool {
	return (s.State != tcp.FinWait2 && s.State != tcp.FinWait2TimeWait || slices.Contains(l.request.States, s.State)) &&
		l.request.Filter.Chooses(s) &&
		(len(l.options.Roles) == 0 || slices.Contains(l.options.Roles, l.role(ns, s)))
}

// role is told by listeners alone: to tell it by fan-out takes all connections.
func (l *listing) role(ns *namespace, s *tcp.Socket) tcp.Role {
	switch {
	case s.State == tcp.Listen || s.State == tcp.Close || s.State == tcp.BoundInactive:
		return ""
	case l.reading.index.Listens(s.RemotePort) && l.reading.index.Remote(ns.index, s.Remote, s.RemotePort):
		return tcp.Connector
	case l.reading.index.Listens(s.LocalPort) && l.reading.index.Covers(ns.index, s.Local, s.LocalPort):
		return tcp.Acceptor
	default:
		return tcp.RoleUnknown
	}
}

// tell visits the sockets of the batch, with their owners.
func (l *listing) tell(ctx context.Context, ns *namespace) error {
	defer func() { l.batch = l.batch[:0] }()
	inodes := map[uint64]struct{}{}
	for _, s := range l.batch {
		if s.Inode != 0 {
			inodes[uint64(s.Inode)] = struct{}{}
		}
	}
	found, err := l.reading.proc.Owners(context.WithoutCancel(ctx), inodes)
	if err != nil {
		l.reading.gap("", "owners of sockets", "a mounted /proc", err)
	}
	if missing := len(inodes) - len(found.ByInode); missing > 0 {
		l.missing += missing
		l.unreadable = max(l.unreadable, found.Unreadable)
	}
	for i := range l.batch {
		s := &l.batch[i]
		out := snapshot.Socket{
			Netns: ns.label(), Inode: ns.facts.Inode,
			State: s.State.String(), Role: l.role(ns, s),
			Local:  tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort},
			Remote: tcp.Endpoint{Addr: s.Remote.Netip(), Port: s.RemotePort},
			Timer:  s.Timer.String(), TimerMS: s.Expires,
			ReceiveQueue: s.ReceiveQueue, SendQueue: s.SendQueue,
			Cookie: s.Cookie,
		}
		if owner, known := found.ByInode[uint64(s.Inode)]; known {
			out.Shared = int(owner.Sharing) - 1
			if p, alive := found.Processes[owner.PID]; alive {
				out.Owner = &snapshot.Owner{
					Process: p.Comm, PID: int(owner.PID), Started: p.Started,
					Container: p.Container, Pod: p.Pod, How: snapshot.Seen,
				}
			}
		}
		if err := l.visit(&out); err != nil {
			return err
		}
	}
	return nil
}
