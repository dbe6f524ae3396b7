package cli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"linger/internal/collect"
	"linger/internal/render"
	"linger/internal/snapshot"
	"linger/internal/sockets"
	"linger/internal/story"
	"linger/internal/tcp"
)

const outputCSV = "csv"

// filterOptions are the flags that choose sockets.
type filterOptions struct {
	netns, states, local, remote, ports []string
}

func (f *filterOptions) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(
		&f.netns,
		"netns",
		nil,
		"read this namespace: a `NAME` under /run/netns, a process id, a path, or all; repeatable (default all)",
	)
	flags.StringSliceVar(&f.states, "state", nil, "in this `STATE`, such as time-wait; repeatable")
	flags.StringSliceVar(&f.local, "local", nil, "with this local `ADDRESS`, PREFIX, ADDRESS:PORT, [IPV6]:PORT or *:PORT; repeatable")
	flags.StringSliceVar(&f.remote, "remote", nil, "with this remote `ADDRESS`, PREFIX, ADDRESS:PORT, [IPV6]:PORT or *:PORT; repeatable")
	flags.StringSliceVar(&f.ports, "port", nil, "with this `PORT` at either end; repeatable")
}

// filter is what the flags say.
type filter struct {
	states        []tcp.State
	local, remote []tcp.Match
	ports         []uint16
}

func (f *filterOptions) parse() (filter, error) {
	var out filter
	if slices.Contains(f.netns, "") {
		return out, usagef("want a name under /run/netns, a process id, a path, or all", "--netns is empty")
	}
	for _, text := range f.states {
		named, err := tcp.StatesNamed(text)
		if err != nil {
			return out, usagef("want a state such as time-wait, fin-wait2, close-wait, established, listen", "--state: %w", err)
		}
		out.states = append(out.states, named...)
	}
	for _, side := range []struct {
		flag  string
		texts []string
		to    *[]tcp.Match
	}{{"--local", f.local, &out.local}, {"--remote", f.remote, &out.remote}} {
		for _, text := range side.texts {
			m, err := tcp.ParseMatch(text)
			if err != nil {
				return out, usagef("want such as 10.0.0.1, 10.0.0.0/8, 10.0.0.1:443, [2001:db8::1]:443 or *:443", "%s: %w", side.flag, err)
			}
			*side.to = append(*side.to, m)
		}
	}
	for _, text := range f.ports {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return out, usagef("want a number from 1 to 65535", "--port: %q is no port", text)
		}
		out.ports = append(out.ports, uint16(port))
	}
	return out, nil
}

// socketsOptions are the flags of linger sockets.
type socketsOptions struct {
	filter filterOptions
	roles  []string
	list   bool
	by     string
	sort   string
	top    int
	window time.Duration
	output string
}

func newSockets(streams Streams) *cobra.Command {
	var o socketsOptions
	c := &cobra.Command{
		Use:   "sockets",
		Short: "Show the connections: by group, or one by one",
		Long: `Show the TCP connections of this host in groups that share what they compete
for: how many in which state, whose, how many of the source ports are used, and
the closes of the last minute. With --list, show each socket.

Of a group the endpoints are known that its connections share: --local, --remote
and --port choose by those, and by an acceptor's busiest clients. --list looks at
each socket, and has the kernel leave out what was not asked for. Its sockets come
in no order.

` + ExitCodes("sockets"),
		Example: `  linger sockets --sort budget --top 10    who is nearest to the end of the ports
  linger sockets --by process --state time-wait
  linger sockets --remote 10.0.0.0/8 --port 5432 -o csv
  linger sockets --list --state close-wait --netns 4242
  linger sockets --list --remote '[2001:db8::1]:443' -o json`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c, streams)
		},
	}
	flags := c.Flags()
	o.filter.add(flags)
	flags.StringSliceVar(&o.roles, "role", nil, "of this `ROLE`: connector, acceptor or unknown; repeatable")
	flags.BoolVar(&o.list, "list", false, "show sockets one by one")
	choose(c, &o.by, "by", "", "what a row gathers", string(sockets.ByGroup), string(sockets.ByDestination), string(sockets.ByService),
		string(sockets.ByProcess), string(sockets.ByNamespace), string(sockets.ByState))
	choose(
		c,
		&o.sort,
		"sort",
		"",
		"which rows come first",
		string(sockets.BySockets),
		string(sockets.ByTimeWait),
		string(sockets.ByBudget),
		string(sockets.ByCloses),
	)
	flags.IntVar(&o.top, "top", 0, "show the first `N` rows; 0 shows all")
	flags.DurationVar(&o.window, "window", time.Second, "`TIME` in which to see who makes connections; 0 takes one look")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON, outputCSV)
	return c
}

func (o *socketsOptions) run(c *cobra.Command, streams Streams) error {
	f, err := o.filter.parse()
	if err != nil {
		return err
	}
	var roles []tcp.Role
	for _, text := range o.roles {
		role := tcp.Role(text)
		if role != tcp.Connector && role != tcp.Acceptor && role != tcp.RoleUnknown {
			return usagef("want connector, acceptor, unknown", "--role: %q is no role", text)
		}
		roles = append(roles, role)
	}
	switch {
	case o.window < 0:
		return usagef("0 takes one look", "--window %s: want no negative time", o.window)
	case o.top < 0:
		return usagef("0 shows all", "--top %d: want no negative number", o.top)
	}
	if o.list {
		for _, flag := range []string{"by", "sort", "top", "window"} {
			if c.Flags().Changed(flag) {
				return usagef("sockets are shown as they are read; leave one of the two out", "--%s does not go with --list", flag)
			}
		}
		return o.showList(c.Context(), streams, f, roles)
	}
	if slices.Contains(f.states, tcp.Listen) || slices.Contains(f.states, tcp.BoundInactive) || slices.Contains(f.states, tcp.Close) {
		return usagef("add --list", "--state: groups are of connections, and have no sockets in that state")
	}
	return o.showTable(c.Context(), streams, f, roles)
}

func (o *socketsOptions) showTable(ctx context.Context, streams Streams, f filter, roles []tcp.Role) error {
	started := time.Now()
	ask := collect.Options{Netns: o.filter.netns, Window: o.window}
	stop := func() {}
	if canErase(terminalOf(streams.Err), streams.Getenv) {
		p := startProgress(streams.Err, o.window)
		ask.Progress, stop = p.report, p.stop
	}
	read, err := collect.Collect(ctx, ask)
	stop()
	if err != nil {
		return unknownNamespace(err)
	}
	told := &story.Groups{
		Snapshot: read,
		Table: sockets.NewTable(read, sockets.Query{
			States: f.states, Local: f.local, Remote: f.remote, Ports: f.ports, Roles: roles,
			By: sockets.By(o.by), Order: sockets.Order(o.sort), Top: o.top,
		}),
		Elapsed: time.Since(started),
	}
	switch o.output {
	case outputJSON:
		err = render.JSON{}.Sockets(streams.Out, told)
	case outputCSV:
		if err = render.SocketsCSV(streams.Out, told); err == nil {
			for _, note := range told.Table.Notes {
				complain(streams.Err, errors.New(note))
			}
			complainOf(streams.Err, read.Gaps)
		}
	default:
		style := styleFor(terminalOf(streams.Out), streams.Getenv, colorNever, false)
		_, err = render.Table{Style: style}.Print(streams.Out, story.Sockets(told))
	}
	return quietly(err)
}

// unknownNamespace says what to do about a namespace that does not exist.
func unknownNamespace(err error) error {
	if errors.Is(err, collect.ErrUnknownNamespace) {
		return &usageError{err: err, hint: "`ip netns list` and `lsns -t net` tell which there are"}
	}
	return err
}

func (o *socketsOptions) showList(ctx context.Context, streams Streams, f filter, roles []tcp.Role) error {
	started := time.Now()
	list := o.lister(streams)
	var written error // a failure to write, in contrast to one to read
	begun := false
	begin := func() error {
		if !begun {
			begun, written = true, list.Begin(started)
		}
		return written
	}
	gaps, err := collect.List(ctx, collect.ListOptions{
		Netns: o.filter.netns, States: f.states, Local: f.local, Remote: f.remote, Ports: f.ports, Roles: roles,
	}, func(s *snapshot.Socket) error {
		if begin() == nil {
			written = list.Socket(s)
		}
		return written
	})
	if written != nil {
		return quietly(written)
	}
	if err != nil {
		return unknownNamespace(err)
	}
	if err := begin(); err != nil {
		return quietly(err)
	}
	if err := list.End(gaps, time.Since(started)); err != nil {
		return quietly(err)
	}
	if o.output == outputCSV {
		complainOf(streams.Err, gaps)
	}
	return nil
}

// complainOf tells the gaps of a form that has no place for them.
func complainOf(w io.Writer, gaps []snapshot.Gap) {
	for _, g := range gaps {
		complain(w, errors.New("not read: "+g.What+": needs "+g.Needs))
	}
}

func (o *socketsOptions) lister(streams Streams) render.SocketList {
	switch o.output {
	case outputJSON:
		return render.SocketListJSON(streams.Out)
	case outputCSV:
		return render.SocketListCSV(streams.Out)
	default:
		return render.SocketListText(streams.Out, styleFor(terminalOf(streams.Out), streams.Getenv, colorNever, false))
	}
}
