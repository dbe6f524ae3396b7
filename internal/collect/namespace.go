package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"linger/internal/kernel/conntrack"
	"linger/internal/kernel/netns"
	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sockdiag"
	"linger/internal/kernel/sysctl"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// namespace is one namespace while it is read.
type namespace struct {
	index  int // in reading.namespaces
	found  netns.Found
	handle *netns.Handle
	facts  snapshot.Namespace
	err    error // why it could not be entered

	sockets        *sockdiag.Conn // nil where there is no TCP
	listenerInodes []uint32       // by position in facts.Listeners
	groups         []*group
	// The same groups by what their connections share.
	connectors, acceptors map[groupKey]*group
	// What connect() makes of their TIME_WAIT sockets, nil where that was not read.
	takeovers map[*group]*snapshot.Takeover

	// The first reading.
	counters  map[string]uint64
	conntrack *conntrack.Table
	sockstat  procnet.Sockstat
}

func (ns *namespace) close() {
	if ns.sockets != nil {
		ns.sockets.Close()
	}
	if ns.handle != nil {
		ns.handle.Close()
	}
}

// label is for gaps, which may arise before the label is known.
func (ns *namespace) label() string {
	if ns.facts.Label.Kind != "" {
		return ns.facts.Label.String()
	}
	return ns.found.Path
}

// needsRights is what closes a gap that the kernel's checks of rights made: to look
// at a process takes CAP_SYS_PTRACE, to enter a namespace CAP_SYS_ADMIN.
func needsRights(capability string) string {
	if os.Geteuid() == 0 {
		return capability + ", which this root lacks there"
	}
	return "root"
}

// choose finds the namespaces that the options name.
func (r *reading) choose() error {
	own, err := netns.Current()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoNamespace, err)
	}
	defer own.Close()
	r.hostInode = hostInode()
	found, problems := netns.Discover(string(proc))
	all := len(r.options.Netns) == 0
	var chosen []netns.Found
	for _, name := range r.options.Netns {
		if name == "all" {
			all = true
			continue
		}
		one, err := resolve(found, name)
		if err != nil {
			return err
		}
		chosen = append(chosen, one)
	}
	if all {
		chosen = append(chosen, found...)
		chosen = append(chosen, netns.Found{Inode: own.Inode(), Path: string(proc) + "/thread-self/ns/net"})
		for _, problem := range problems {
			r.gap("", "some network namespaces", needsRights("CAP_SYS_PTRACE"), problem)
		}
		if processesHidden() {
			r.gap("", "some network namespaces", "a /proc that shows all processes (no hidepid)",
				errors.New("/proc lists only some of the processes"))
		}
	}
	seen := map[uint64]bool{}
	for _, f := range chosen {
		if seen[f.Inode] {
			continue
		}
		seen[f.Inode] = true
		ns := &namespace{index: len(r.namespaces), found: f}
		ns.facts.Own = f.Inode == own.Inode()
		ns.facts.Addresses, ns.facts.Listeners = []netip.Addr{}, []snapshot.Listener{}
		r.namespaces = append(r.namespaces, ns)
	}
	return nil
}

// Locate is the path of the namespace that a name means: under /run/netns, of a
// process, or a path itself.
func Locate(name string) (string, error) {
	found, err := resolve(nil, name)
	return found.Path, err
}

// resolve finds one namespace by its name under /run/netns, by a process in it,
// or by the path of its file.
func resolve(found []netns.Found, name string) (netns.Found, error) {
	path := filepath.Join("/run/netns", name)
	if strings.Contains(name, "/") {
		path = name
	} else if _, err := os.Stat(path); err != nil {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return netns.Found{}, fmt.Errorf("%w: %s is no name under /run/netns, no process id and no path", ErrUnknownNamespace, name)
		}
		path = fmt.Sprintf("%s/%d/ns/net", proc, pid)
	}
	h, err := netns.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace):
		return netns.Found{}, fmt.Errorf("%w: %s: %w", ErrUnknownNamespace, name, err)
	case err != nil:
		return netns.Found{}, fmt.Errorf("%w: %s: %w (needs %s)", ErrNoNamespace, name, err, needsRights("CAP_SYS_PTRACE"))
	}
	defer h.Close()
	for _, f := range found {
		if f.Inode == h.Inode() {
			return f, nil
		}
	}
	return netns.Found{Inode: h.Inode(), Path: path}, nil
}

// enter reads all of a namespace but its connections.
func (r *reading) enter(ctx context.Context, ns *namespace) {
	if ns.err = ctx.Err(); ns.err != nil {
		return
	}
	if ns.facts.Own {
		ns.handle, ns.err = netns.Current()
	} else {
		ns.handle, ns.err = netns.Open(ns.found.Path)
	}
	if ns.err != nil {
		return
	}
	ns.facts.Inode = ns.handle.Inode()
	ns.facts.PID = ns.found.PID
	if ns.found.Name != "" || ns.found.PID == 0 && !ns.facts.Own {
		ns.facts.Path = ns.found.Path
	}
	ns.facts.Label = r.labelOf(ns)
	ns.err = ns.handle.Do(func() error {
		r.readInside(ctx, ns)
		return nil
	})
}

// readInside runs on a thread that is in the namespace.
func (r *reading) readInside(ctx context.Context, ns *namespace) {
	var err error
	if ns.facts.Cookie, err = ns.handle.Cookie(); err != nil {
		r.gap(ns.label(), "the namespace's cookie", "kernel 5.14", err)
	}
	if ns.counters, err = procnet.ReadCounters(); err != nil {
		r.gap(ns.label(), "counters", "a mounted /proc", err)
	}
	ns.facts.Counters = snapshot.NewCounters(ns.counters, nil)

	if ns.sockstat, err = procnet.ReadSockstat(); err != nil {
		r.gap(ns.label(), "sockstat", "a mounted /proc", err)
	}
	if s := ns.sockstat; s.InUse4 != nil && s.TimeWait != nil {
		ns.facts.Sockstat = &snapshot.Sockstat{InUse4: *s.InUse4, TimeWait: *s.TimeWait}
		if s.InUse6 != nil {
			ns.facts.Sockstat.InUse6 = *s.InUse6
		}
	}

	if ns.facts.Settings, err = sysctl.ReadAll(sysctl.PerNamespace); err != nil {
		r.gap(ns.label(), "some sysctls", "a mounted and readable /proc/sys", err)
	}
	if ns.conntrack, err = conntrack.Read(); err != nil {
		r.gap(ns.label(), "connection tracking", "a mounted and readable /proc/sys", err)
	}
	if ns.conntrack != nil {
		ns.facts.Conntrack = conntrackFacts(ns.conntrack, nil)
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
	if err := r.readListeners(ctx, ns); err != nil && ctx.Err() == nil {
		r.gap(ns.label(), "sockets", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
	}
}

func (r *reading) readListeners(ctx context.Context, ns *namespace) error {
	conn, err := sockdiag.Dial(0)
	if err != nil {
		return err
	}
	err = conn.Dump(ctx, sockdiag.Request{States: []tcp.State{tcp.Listen}}, func(s *sockdiag.Socket) {
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
		conn.Close()
		return err
	}
	if s := ns.facts.Sockstat; s != nil && s.TimeWait == 0 && s.InUse4+s.InUse6 <= int64(len(ns.facts.Listeners)) {
		// It only listens, but for handshakes under way, which are not counted there.
		// Connections are in a table that all namespaces share, and to look for none in
		// it takes tens of milliseconds beside a busy one.
		ns.facts.SocketsRead, ns.facts.SocketsComplete = true, true
		conn.Close()
		return nil
	}
	ns.sockets = conn
	return nil
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

func conntrackFacts(first, second *conntrack.Table) *snapshot.Conntrack {
	var again map[string]uint64
	now := first
	if second != nil {
		now, again = second, second.Counters
	}
	return &snapshot.Conntrack{
		Count:          now.Count,
		Max:            now.Max,
		TimeoutSeconds: now.TimeoutSeconds,
		Counters:       snapshot.NewCounters(first.Counters, again),
	}
}

// readAgain is the second look at what counts up.
func (r *reading) readAgain(ns *namespace) {
	err := ns.handle.Do(func() error {
		counters, err := procnet.ReadCounters()
		if err != nil {
			return err
		}
		ns.facts.Counters = snapshot.NewCounters(ns.counters, counters)
		if ns.conntrack == nil {
			return nil
		}
		table, err := conntrack.Read()
		if table != nil {
			ns.facts.Conntrack = conntrackFacts(ns.conntrack, table)
		}
		return err
	})
	if err != nil {
		r.gap(ns.label(), "counters a second time", "a mounted /proc", err)
	}
}

// timeWaitLeftEarly tells whether sockets left TIME_WAIT before their time in
// the window: taken over by connect(), or never kept.
func (ns *namespace) timeWaitLeftEarly() bool {
	recycled, _ := ns.facts.Counters.Rose("TcpExtTWRecycled")
	overflowed, _ := ns.facts.Counters.Rose("TcpExtTCPTimeWaitOverflow")
	return recycled+overflowed > 0
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
		ns.close()
	}
	r.namespaces = read
	if len(read) == 0 && !slices.ContainsFunc(problems, interrupted) {
		return fmt.Errorf("%w: %w", ErrNoNamespace, errors.Join(problems...))
	}
	return nil
}

func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
