package change

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/process"
	"linger/internal/kernel/sockdiag"
	"linger/internal/tcp"
)

// The kinds of record that tell of a reap: before the first socket is destroyed, and
// after the last.
const (
	Reaping Kind = "reaping"
	Reaped  Kind = "reaped"
)

// ErrCannotDestroy means that this kernel ends no such socket.
var ErrCannotDestroy = sockdiag.ErrCannotDestroy

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
	Groups    []Caught
	// Matched is how many sockets the selection holds for; Max may have left some out.
	Matched int

	sockets []found
	handle  *netns.Handle
}

// Caught counts the sockets between one address here and one endpoint there, or, where
// a service is at this end, at one port here.
type Caught struct {
	Local, Remote tcp.Endpoint
	State         tcp.State
	Sockets       int
	// Owners are the names and ids of the processes that have them, none where the
	// kernel has forgotten: a time-wait socket has no owner any more.
	Owners []string
}

// Len is how many sockets are in the catch.
func (c *Catch) Len() int { return len(c.sockets) }

// Close lets the namespace go.
func (c *Catch) Close() error { return c.handle.Close() }

// found is one socket of a catch.
type found struct {
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

func (c *Catch) dump(ctx context.Context) ([]found, error) {
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
	var sockets []found
	err = conn.Dump(ctx, request, func(row *tcp.Socket) {
		f := found{target: sockdiag.TargetOf(row), state: row.State, inode: row.Inode, age: ageOf(row)}
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
func (c *Catch) narrow(ctx context.Context, sockets []found) error {
	owners, err := ownersOf(ctx, sockets)
	if err != nil {
		return err
	}
	if p := c.Selection.Process; p != "" {
		sockets = slices.DeleteFunc(sockets, func(f found) bool {
			o, known := owners[f.inode]
			return !known || o.Comm != p && strconv.Itoa(o.PID) != p
		})
	}
	c.Matched = len(sockets)
	if most := c.Selection.Max; most > 0 && len(sockets) > most {
		slices.SortStableFunc(sockets, func(a, b found) int { return cmp.Compare(b.age, a.age) })
		sockets = sockets[:most]
	}
	c.sockets = sockets
	c.Groups = gather(sockets, owners)
	return nil
}

func ownersOf(ctx context.Context, sockets []found) (map[uint32]process.Process, error) {
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
func gather(sockets []found, owners map[uint32]process.Process) []Caught {
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
	groups := map[key]*Caught{}
	for _, f := range sockets {
		t := f.target
		k := key{local: t.Local, remote: t.Remote, remotePort: t.RemotePort, state: f.state}
		if local[t.LocalPort] > remote[t.RemotePort] {
			k = key{local: t.Local, localPort: t.LocalPort, state: f.state}
		}
		g := groups[k]
		if g == nil {
			g = &Caught{State: f.state, Local: tcp.Endpoint{Addr: k.local.Netip(), Port: k.localPort}}
			if k.localPort == 0 {
				g.Remote = tcp.Endpoint{Addr: k.remote.Netip(), Port: k.remotePort}
			}
			groups[k] = g
		}
		g.Sockets++
		if p, known := owners[f.inode]; known {
			name := fmt.Sprintf("%s (pid %d)", p.Comm, p.PID)
			if !slices.Contains(g.Owners, name) {
				g.Owners = append(g.Owners, name)
			}
		}
	}
	all := make([]Caught, 0, len(groups))
	for _, g := range groups {
		slices.Sort(g.Owners)
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b Caught) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets),
			cmp.Compare(a.Local.String(), b.Local.String()), cmp.Compare(a.Remote.String(), b.Remote.String()),
			cmp.Compare(a.State, b.State))
	})
	return all
}

// ReapOptions say how a catch is reaped.
type ReapOptions struct {
	StateDir string
	// Rate is the most a second, 0 for no limit.
	Rate int
	// Progress is told how many are done.
	Progress func(done, total int)
}

// ReapResult is what became of a catch.
type ReapResult struct {
	ID string `json:"id"`
	// Reaped were destroyed; Gone had ended by themselves, or their four numbers were in
	// use again; Left were not tried.
	Reaped int `json:"reaped"`
	Gone   int `json:"gone"`
	Left   int `json:"left"`
	// Cause is why some were left.
	Cause string `json:"cause,omitempty"`
}

// reapingDetail is what the journal says before the first socket goes.
type reapingDetail struct {
	Selection
	Cookie       uint64   `json:"netns_cookie"`
	Inode        uint64   `json:"netns_inode"`
	StateNames   []string `json:"states"`
	LocalTexts   []string `json:"local,omitempty"`
	RemoteTexts  []string `json:"remote,omitempty"`
	OlderSeconds float64  `json:"older_than_seconds,omitempty"`
	Sockets      int      `json:"sockets"`
	User         string   `json:"user"`
}

// slice is how many sockets are destroyed between two looks at the clock.
const slice = 1024

// Reap destroys the sockets of a catch, and no others: a connection that has the same
// four numbers by now has another cookie. The journal says so before the first one goes
// and after the last. When ctx is done it stops between two sockets, and tells how many
// are left. A result comes with an error where some were left.
func (c *Catch) Reap(ctx context.Context, o ReapOptions) (*ReapResult, error) {
	j, err := OpenJournal(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	// Room for the record of what was done, whatever fills the disk meanwhile.
	if err := j.Reserve(); err != nil {
		return nil, err
	}
	conn, err := sockdiag.Dial(c.handle.FD())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	result := &ReapResult{ID: newID(), Left: len(c.sockets)}
	if err := j.Append(Reaping, result.ID, c.detail()); err != nil {
		return nil, err
	}
	err = c.destroy(ctx, conn, o, result)
	if err != nil {
		result.Cause = err.Error()
	}
	return result, errors.Join(err, j.Append(Reaped, result.ID, result))
}

func (c *Catch) detail() reapingDetail {
	s := c.Selection
	d := reapingDetail{
		Selection: s, Inode: c.handle.Inode(), Sockets: len(c.sockets), User: user(), OlderSeconds: s.OlderThan.Seconds(),
	}
	d.Cookie, _ = c.handle.Cookie() // 0 where the kernel has none
	for _, state := range s.States {
		d.StateNames = append(d.StateNames, state.String())
	}
	for _, m := range s.Local {
		d.LocalTexts = append(d.LocalTexts, m.String())
	}
	for _, m := range s.Remote {
		d.RemoteTexts = append(d.RemoteTexts, m.String())
	}
	return d
}

func (c *Catch) destroy(ctx context.Context, conn *sockdiag.Conn, o ReapOptions, result *ReapResult) error {
	start, total := time.Now(), len(c.sockets)
	targets := make([]sockdiag.Target, 0, slice)
	for done := 0; done < total; {
		n := min(slice, total-done)
		if o.Rate > 0 {
			n = min(n, max(1, o.Rate/10))
			// So many may be done by now as the rate allows.
			due := start.Add(time.Duration(float64(done) / float64(o.Rate) * float64(time.Second)))
			if err := sleepUntil(ctx, due); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return interruption(ctx)
		}
		targets = targets[:0]
		for _, f := range c.sockets[done : done+n] {
			targets = append(targets, f.target)
		}
		d, err := conn.Destroy(targets)
		result.Reaped += d.Done
		result.Gone += d.Gone
		result.Left = total - result.Reaped - result.Gone
		if err != nil {
			return err
		}
		done += n
		if o.Progress != nil {
			o.Progress(done, total)
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, due time.Time) error {
	wait := time.NewTimer(time.Until(due))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return interruption(ctx)
	}
}

func interruption(ctx context.Context) error {
	return fmt.Errorf("interrupted: %w", context.Cause(ctx))
}

// ReapEntry is one reap as the journal tells it.
type ReapEntry struct {
	ID      string    `json:"id"`
	Began   time.Time `json:"began"`
	User    string    `json:"user"`
	Netns   string    `json:"netns"` // a path, empty for that of linger
	Sockets int       `json:"sockets"`
	// Result is nil where the process ended before it could say.
	Result *ReapResult `json:"result"`
}

// Reaps are those of the journal, the oldest first.
func Reaps(stateDir string) ([]ReapEntry, error) {
	records, err := ReadJournal(stateDir)
	if err != nil {
		return nil, err
	}
	reaps := []ReapEntry{}
	for _, r := range records {
		var into any
		switch r.Kind {
		case Reaping:
			reaps = append(reaps, ReapEntry{ID: r.ID, Began: r.At})
			into = &reaps[len(reaps)-1]
		case Reaped:
			at := slices.IndexFunc(reaps, func(e ReapEntry) bool { return e.ID == r.ID })
			if at < 0 {
				return nil, fmt.Errorf("%w: record %d ends a reap that did not begin", ErrCorrupt, r.Seq)
			}
			reaps[at].Result = &ReapResult{}
			into = reaps[at].Result
		default:
			continue
		}
		if err := json.Unmarshal(r.Detail, into); err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", ErrCorrupt, r.Seq, err)
		}
	}
	return reaps, nil
}
