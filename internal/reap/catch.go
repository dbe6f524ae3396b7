package reap

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"linger/internal/deed"
	"linger/internal/kernel/netns"
	"linger/internal/kernel/process"
	"linger/internal/kernel/sockdiag"
	"linger/internal/tcp"
)

// Selection says which sockets of one namespace to reap. All that it says must hold.
type Selection struct {
	// Netns is a path of a namespace file, empty for the caller's own.
	Netns string `json:"netns,omitempty"`
	// States are those wanted, at least one.
	States []tcp.State `json:"-"`
	// Local and Remote choose the ends; one of each list must match, none means all.
	Local  []tcp.Match `json:"-"`
	Remote []tcp.Match `json:"-"`
	// Process is a name or a process id, empty for any. Time-wait sockets have none.
	Process string `json:"process,omitempty"`
	// OlderThan leaves out what is younger, or may be. The age of a socket in TIME_WAIT
	// is exact; a full socket is at least as old as it has heard nothing from its peer;
	// what stands in for FIN_WAIT2 tells no age.
	OlderThan time.Duration `json:"-"`
	// Max is the most to reap, the oldest in TIME_WAIT first; 0 for no limit.
	Max int `json:"max,omitempty"`
}

// Catch is what a Selection found, and what Reap will destroy: these very sockets, and
// none that came later.
type Catch struct {
	Selection Selection
	Groups    []deed.Caught
	// Matched is how many sockets the selection holds for; Max may have left some out.
	Matched int

	sockets []socket
	handle  *netns.Handle
}

// Len is how many sockets are in the catch.
func (c *Catch) Len() int { return len(c.sockets) }

// Close lets the namespace go.
func (c *Catch) Close() error { return c.handle.Close() }

// socket is one of a catch.
type socket struct {
	target sockdiag.Target
	state  tcp.State
	inode  uint32
	age    time.Duration
}

// Find reads the sockets that a selection holds for. It changes nothing.
func Find(ctx context.Context, s Selection) (*Catch, error) {
	handle, err := openNamespace(s.Netns)
	if err != nil {
		return nil, err
	}
	c := &Catch{Selection: s, handle: handle}
	sockets, err := c.dump(ctx)
	if err == nil {
		err = c.narrow(ctx, sockets)
	}
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return c, nil
}

func openNamespace(path string) (*netns.Handle, error) {
	if path == "" {
		return netns.Current()
	}
	return netns.Open(path)
}

func (c *Catch) dump(ctx context.Context) ([]socket, error) {
	conn, err := sockdiag.Dial(c.handle.FD())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	s := &c.Selection
	request := sockdiag.Request{
		States: s.States, LastAck: s.OlderThan > 0,
		Filter: sockdiag.Filter{Local: s.Local, Remote: s.Remote},
	}
	var sockets []socket
	err = conn.Dump(ctx, request, func(row *tcp.Socket) {
		f := socket{target: sockdiag.TargetOf(row), state: row.State, inode: row.Inode, age: ageOf(row)}
		if slices.Contains(s.States, row.State) && f.age >= s.OlderThan &&
			request.Filter.Chooses(row) {
			sockets = append(sockets, f)
		}
	})
	return sockets, err
}

// ageOf is for how long a socket has been in its state, or a lower bound of it.
func ageOf(s *tcp.Socket) time.Duration {
	switch {
	case s.State == tcp.TimeWait:
		return timeWait - time.Duration(s.Expires)*time.Millisecond
	case s.LastAckReceived > 0:
		return time.Duration(s.LastAckReceived) * time.Millisecond
	default:
		return 0
	}
}

// timeWait is TCP_TIMEWAIT_LEN of include/net/tcp.h.
const timeWait = 60 * time.Second

// narrow leaves out what belongs to another process and what is beyond the limit, and
// says whose the rest is.
func (c *Catch) narrow(ctx context.Context, sockets []socket) error {
	owners, err := ownersOf(ctx, sockets)
	if err != nil {
		return err
	}
	if p := c.Selection.Process; p != "" {
		sockets = slices.DeleteFunc(sockets, func(f socket) bool {
			o, known := owners[f.inode]
			return !known || o.Comm != p && strconv.Itoa(o.PID) != p
		})
	}
	c.Matched = len(sockets)
	if most := c.Selection.Max; most > 0 && len(sockets) > most {
		slices.SortStableFunc(sockets, func(a, b socket) int { return cmp.Compare(b.age, a.age) })
		sockets = sockets[:most]
	}
	c.sockets = sockets
	c.Groups = gather(sockets, owners)
	return nil
}

func ownersOf(ctx context.Context, sockets []socket) (map[uint32]process.Process, error) {
	inodes := map[uint64]struct{}{}
	for _, f := range sockets {
		if f.inode != 0 {
			inodes[uint64(f.inode)] = struct{}{}
		}
	}
	owners := map[uint32]process.Process{}
	if len(inodes) == 0 {
		return owners, nil
	}
	ownership, err := process.Tree("/proc").Owners(ctx, inodes)
	for inode, o := range ownership.ByInode {
		if p, known := ownership.Processes[o.PID]; known {
			owners[uint32(inode)] = p
		}
	}
	return owners, err
}

// gather counts sockets by what they share, the largest group first.
func gather(sockets []socket, owners map[uint32]process.Process) []deed.Caught {
	type key struct {
		local, remote tcp.Addr
		localPort     uint16
		remotePort    uint16
		state         tcp.State
	}
	// The end whose port more of them share is the service.
	local, remote := map[uint16]int{}, map[uint16]int{}
	for _, f := range sockets {
		local[f.target.LocalPort]++
		remote[f.target.RemotePort]++
	}
	groups := map[key]*deed.Caught{}
	for _, f := range sockets {
		t := f.target
		k := key{local: t.Local, remote: t.Remote, remotePort: t.RemotePort, state: f.state}
		if local[t.LocalPort] > remote[t.RemotePort] {
			k = key{local: t.Local, localPort: t.LocalPort, state: f.state}
		}
		g := groups[k]
		if g == nil {
			g = &deed.Caught{State: f.state, Local: tcp.Endpoint{Addr: k.local.Netip(), Port: k.localPort}}
			if k.localPort == 0 {
				g.Remote = tcp.Endpoint{Addr: k.remote.Netip(), Port: k.remotePort}
			}
			groups[k] = g
		}
		g.Sockets++
		if p, known := owners[f.inode]; known {
			if o := (deed.Owner{Comm: p.Comm, PID: p.PID}); !slices.Contains(g.Owners, o) {
				g.Owners = append(g.Owners, o)
			}
		}
	}
	all := make([]deed.Caught, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g.Owners, func(a, b deed.Owner) int { return cmp.Compare(a.String(), b.String()) })
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b deed.Caught) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets),
			cmp.Compare(a.Local.String(), b.Local.String()), cmp.Compare(a.Remote.String(), b.Remote.String()),
			cmp.Compare(a.State, b.State))
	})
	return all
}
