package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"

	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// namespace is what one reading sees of a namespace.
type namespace struct {
	*door
	index int // in reading.namespaces
	facts snapshot.Namespace
	err   error // why it could not be entered

	sockstat procnet.Sockstat
	// connected is false where it has no connections, and a look for some can be spared.
	connected bool
	// still is true where the sockets are what they were when they were last walked over.
	still          bool
	listenerInodes []uint32 // by position in facts.Listeners
	sorted         group.Sorted
	// What connect() makes of the groups' TIME_WAIT sockets, nil where that was not read.
	takeovers map[*group.Group]*snapshot.Takeover
	// rise is what rose, nil where that is not known.
	rise *snapshot.NamespaceInterval
}

// label is for gaps, which may arise before the label is known.
func (ns *namespace) label() string {
	if ns.facts.Label.Kind != "" {
		return ns.facts.Label.String()
	}
	return ns.found.Path
}

// enter reads all of a namespace but its connections.
func (r *reading) enter(ctx context.Context, ns *namespace) {
	if ns.err = ctx.Err(); ns.err != nil {
		return
	}
	ns.facts.Inode = ns.handle.Inode()
	ns.facts.PID = ns.found.PID
	if ns.found.Name != "" || ns.found.PID == 0 && !ns.facts.Own {
		ns.facts.Path = ns.found.Path
	}
	now := r.snapshot.TakenAt
	stale := ns.files == nil || now.Sub(ns.readAt) >= freshFor
	if stale || ns.labelPID != ns.found.PID {
		ns.door.label, ns.labelPID = r.labelOf(ns.door), ns.found.PID
	}
	ns.facts.Label = ns.door.label
	ns.err = ns.handle.Do(func() error {
		if stale {
			ns.openFiles(r.roots.Proc, now)
		}
		r.readInside(ctx, ns)
		return nil
	})
	if !r.keepFiles {
		ns.closeFiles()
	}
}

// readInside runs on a thread that is in the namespace.
func (r *reading) readInside(ctx context.Context, ns *namespace) {
	for _, g := range ns.gaps {
		r.gap(ns.label(), g.what, g.needs, g.cause)
	}
	ns.facts.Cookie, ns.facts.Settings = ns.cookie, maps.Clone(ns.settings)

	counters, err := ns.files.Counters()
	if err != nil {
		r.gap(ns.label(), "counters", "a mounted /proc", err)
	}
	ns.facts.Counters.Total = counters
	if ns.sockstat, err = ns.files.Sockstat(); err != nil {
		r.gap(ns.label(), "sockstat", "a mounted /proc", err)
	}
	if s := ns.sockstat; s.InUse4 != nil && s.TimeWait != nil {
		ns.facts.Sockstat = &snapshot.Sockstat{InUse4: *s.InUse4, TimeWait: *s.TimeWait}
		if s.InUse6 != nil {
			ns.facts.Sockstat.InUse6 = *s.InUse6
		}
	}
	if ns.facts.Conntrack, err = ns.conntrack(); err != nil {
		r.gap(ns.label(), "connection tracking", "a mounted and readable /proc/sys", err)
	}

	if addrs, err := net.InterfaceAddrs(); err != nil {
		r.gap(ns.label(), "addresses", "rtnetlink", err)
	} else {
		ns.facts.Addresses = addresses(addrs)
	}

	s := ns.facts.Sockstat
	if s != nil && s.InUse4+s.InUse6+s.TimeWait == 0 {
		ns.facts.SocketsRead, ns.facts.SocketsComplete = true, true
		return
	}
	if err := ns.readListeners(ctx); err != nil && ctx.Err() == nil {
		r.gap(ns.label(), "sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
	}
	if !r.keepFiles && !ns.connected {
		ns.closeSockets()
	}
}

func (ns *namespace) readListeners(ctx context.Context) error {
	err := ns.dump(ctx, sockdiag.Request{States: []tcp.State{tcp.Listen}}, func(s *tcp.Socket) {
		ns.facts.States[s.State]++
		ns.facts.Listeners = append(ns.facts.Listeners, snapshot.Listener{
			Local:       tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort},
			V6Only:      s.V6Only,
			AcceptQueue: s.ReceiveQueue,
			Backlog:     s.SendQueue,
		})
		ns.listenerInodes = append(ns.listenerInodes, s.Inode)
	})
	if err != nil {
		return err
	}
	if s := ns.facts.Sockstat; s != nil && s.TimeWait == 0 && s.InUse4+s.InUse6 <= int64(len(ns.facts.Listeners)) {
		// It only listens, but for handshakes under way, which are not counted there.
		// Connections are in a table that all namespaces share, and to look for none in
		// it takes tens of milliseconds beside a busy one.
		ns.facts.SocketsRead, ns.facts.SocketsComplete = true, true
		return nil
	}
	ns.connected = true
	return nil
}

// conntrack is the connection-tracking table as it is now, nil where there is none.
func (ns *namespace) conntrack() (*snapshot.Conntrack, error) {
	if ns.tracked == nil {
		return nil, nil
	}
	table, err := ns.tracked.Read()
	if table == nil {
		return nil, err
	}
	return &snapshot.Conntrack{
		Count:          table.Count,
		Max:            table.Max,
		TimeoutSeconds: maps.Clone(table.TimeoutSeconds),
		Counters:       snapshot.Counters{Total: table.Counters},
	}, err
}

// countersOf reads what counts up, once more.
func (r *reading) countersOf(ns *namespace) (counters map[string]uint64, tracked *snapshot.Conntrack, err error) {
	if ns.files == nil {
		err = ns.handle.Do(func() error {
			ns.openFiles(r.roots.Proc, r.snapshot.TakenAt)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		defer ns.closeFiles()
	}
	if counters, err = ns.files.Counters(); err != nil {
		return nil, nil, err
	}
	tracked, err = ns.conntrack()
	return counters, tracked, err
}

func addresses(addrs []net.Addr) []netip.Addr {
	out := []netip.Addr{}
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(ipnet.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out
}

// timeWaitLeftEarly tells whether sockets left TIME_WAIT before their time in
// the window: taken over by connect(), or never kept.
func (ns *namespace) timeWaitLeftEarly() bool {
	return ns.rose("TcpExtTWRecycled")+ns.rose("TcpExtTCPTimeWaitOverflow") > 0
}

// rose is by how much a counter is known to have risen.
func (ns *namespace) rose(name string) uint64 {
	if ns.rise == nil {
		return 0
	}
	rise, _ := ns.rise.Counters.Rose(name)
	return rise
}

// dropUnread leaves out the namespaces that could not be entered: those that are
// gone again without a word, the others as gaps.
func (r *reading) dropUnread() error {
	var read []*namespace
	var problems []error
	for _, ns := range r.namespaces {
		switch {
		case ns.err == nil:
			ns.index = len(read)
			read = append(read, ns)
			continue
		case errors.Is(ns.err, fs.ErrNotExist):
		case interrupted(ns.err):
		default:
			r.gap(ns.label(), "the whole namespace", needsRights("CAP_SYS_ADMIN"), ns.err)
			ns.err = fmt.Errorf("%s: %w (needs %s)", ns.label(), ns.err, needsRights("CAP_SYS_ADMIN"))
		}
		problems = append(problems, ns.err)
	}
	r.namespaces = read
	if len(read) == 0 && !slices.ContainsFunc(problems, interrupted) {
		return fmt.Errorf("%w: %w", errNoNamespace, errors.Join(problems...))
	}
	return nil
}

func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
