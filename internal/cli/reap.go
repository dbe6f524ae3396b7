package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/collect"
	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/reap"
	"linger/internal/render"
	"linger/internal/snapshot"
	"linger/internal/story"
	"linger/internal/tcp"
)

// reapOptions are the flags of linger reap.
type reapOptions struct {
	local, remote []string
	states        []string
	netns         string
	process       string
	olderThan     time.Duration
	max, rate     int
	yes, dryRun   bool
	stateDir      string
	output, color string
	verbose       bool
}

func newReap(streams Streams, code *int) *cobra.Command {
	var o reapOptions
	c := &cobra.Command{
		Use:   "reap --remote ADDR[:PORT] | --local ADDR[:PORT]",
		Short: "First aid: destroy sockets that match, TIME_WAIT unless told otherwise",
		Long: `Destroy sockets in the kernel (SOCK_DESTROY), and nothing else: first aid where
ports or tables are used up by TIME_WAIT. It removes a protection and cures no
cause: what made the sockets makes them again.

It first shows how many there are and whose, then asks on a terminal; elsewhere it
needs --yes. Just the sockets that were shown go: one whose four numbers are in use
again is never hit. The journal says what was done.

` + ExitCodes("reap"),
		Example: `  linger reap --remote 10.0.0.7:5432 --dry-run          show, and do nothing
  linger reap --remote 10.0.0.7:5432 --older-than 5s    ask, then do it
  linger reap --local "*:8080" --netns blue --yes          of a service in a namespace
  linger reap --local "*:8080" --states close-wait --process worker --yes`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			*code, err = o.run(c.Context(), streams)
			return err
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(&o.remote, "remote", nil, "with this other end: `ADDR`, ADDR:PORT, a prefix, or *:PORT; repeatable")
	flags.StringArrayVar(&o.local, "local", nil, "with this end here: `ADDR`, ADDR:PORT, a prefix, or *:PORT; repeatable")
	flags.StringSliceVar(&o.states, "states", []string{"time-wait"}, "in these `STATES`: time-wait, fin-wait-2, close-wait, established")
	flags.StringVar(&o.netns, "netns", "", "in this namespace: a `NAME` under /run/netns, a process id, or a path (default linger's own)")
	flags.StringVar(&o.process, "process", "", "of this process, by `NAME` or id; time-wait sockets have none")
	flags.DurationVar(&o.olderThan, "older-than", 0, "in their state for this `TIME` at least: exact for TIME_WAIT, a lower bound for others")
	flags.IntVar(&o.max, "max", 0, "`N` at the most, the oldest first; 0 is no limit")
	flags.IntVar(&o.rate, "rate", 0, "`N` a second at the most; 0 is no limit")
	flags.BoolVar(&o.yes, "yes", false, "do not ask")
	flags.BoolVar(&o.dryRun, "dry-run", false, "show what would go, and do nothing")
	flags.StringVar(&o.stateDir, "state-dir", journal.DefaultDir, "`DIR` of the journal")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "tell each group of sockets")
	return c
}

func (o *reapOptions) run(ctx context.Context, streams Streams) (int, error) {
	selection, err := o.selection()
	if err != nil {
		return 0, err
	}
	catch, err := reap.Find(ctx, selection)
	if err != nil {
		return 0, &failedError{withRights(err)}
	}
	defer catch.Close()
	told := &deed.Reaping{
		Netns: o.netns, States: catch.Selection.States, Matched: catch.Matched, Sockets: catch.Len(),
		Groups: inferred(catch.Groups, o.makers(ctx, catch)),
	}
	text := render.Text{Style: styleFor(terminalOf(streams.Out), streams.Getenv, o.color, o.verbose)}
	if o.output == outputText {
		if err := quietly(text.Print(streams.Out, story.Reap(told))); err != nil {
			return 0, err
		}
	}
	if !o.dryRun && catch.Len() > 0 {
		if err := o.agreed(streams); err != nil {
			return 0, err
		}
		result, err := o.reap(ctx, catch, streams)
		if result == nil {
			return 0, &failedError{withRights(err)}
		}
		told.Result = result
		if err != nil {
			told.Result.Cause = withRights(err).Error()
		}
	}
	switch {
	case o.output == outputJSON:
		err = render.JSON{}.Reap(streams.Out, told)
	case told.Result != nil:
		err = text.Print(streams.Out, story.Reaped(told.Result))
	}
	if err := quietly(err); err != nil {
		return 0, err
	}
	if told.Result != nil && told.Result.Cause != "" {
		return exitFailed, nil
	}
	return exitOK, nil
}

// reapable are the states that may be named.
var reapable = []tcp.State{tcp.TimeWait, tcp.FinWait2, tcp.FinWait2TimeWait, tcp.CloseWait, tcp.Established}

func (o *reapOptions) selection() (s reap.Selection, err error) {
	if len(o.local)+len(o.remote) == 0 {
		return s, usagef("see `linger reap --help`", "which sockets? want --remote or --local")
	}
	if o.olderThan < 0 || o.max < 0 || o.rate < 0 {
		return s, usagef("0 is no limit", "--older-than, --max and --rate take no negative number")
	}
	for _, name := range o.states {
		states, err := tcp.StatesNamed(name)
		if err != nil || !slices.Contains(reapable, states[0]) {
			return s, usagef("want time-wait, fin-wait-2, close-wait or established", "--states %q is none that can be reaped", name)
		}
		s.States = append(s.States, states...)
	}
	for _, list := range []struct {
		flag  string
		texts []string
		into  *[]tcp.Match
	}{{"local", o.local, &s.Local}, {"remote", o.remote, &s.Remote}} {
		for _, text := range list.texts {
			m, err := tcp.ParseMatch(text)
			if err != nil {
				return s, usagef("see `linger reap --help`", "--%s: %w", list.flag, err)
			}
			*list.into = append(*list.into, m)
		}
	}
	withAddress := func(m tcp.Match) bool { return m.Prefix.IsValid() }
	if slices.Contains(s.States, tcp.Established) && o.process == "" && !slices.ContainsFunc(s.Remote, withAddress) {
		return s, usagef("add --process NAME or --remote ADDRESS", "--states established alone would end the connections of everyone")
	}
	if o.netns != "" {
		if s.Netns, err = collect.Locate(o.netns); err != nil {
			return s, &usageError{err: err, hint: "`ip netns list` and `lsns -t net` tell which there are"}
		}
	}
	s.Process, s.OlderThan, s.Max = o.process, o.olderThan, o.max
	return s, nil
}

// makers looks who opens connections like these, for the kernel has forgotten who
// made a time-wait socket. It takes a second, so that --yes does without.
func (o *reapOptions) makers(ctx context.Context, c *reap.Catch) []snapshot.Group {
	if o.yes || c.Len() == 0 {
		return nil
	}
	netns := c.Selection.Netns
	if netns == "" {
		netns = "/proc/thread-self/ns/net"
	}
	s, err := collect.Collect(ctx, collect.Options{Window: time.Second, Netns: []string{netns}})
	if err != nil || len(s.Namespaces) != 1 {
		return nil // whose they are stays unknown
	}
	return s.Namespaces[0].Groups
}

// inferred adds the owners of sockets that have none: who is seen with such connections.
func inferred(caught []deed.Caught, makers []snapshot.Group) []deed.Caught {
	caught = slices.Clone(caught)
	for i := range caught {
		if c := &caught[i]; len(c.Owners) == 0 {
			c.Owners = makersOf(makers, c)
			c.Inferred = len(c.Owners) > 0
		}
	}
	return caught
}

func makersOf(groups []snapshot.Group, c *deed.Caught) (owners []deed.Owner) {
	for _, g := range groups {
		asAcceptor := g.Role == tcp.Acceptor && g.Local == c.Local
		asConnector := g.Role != tcp.Acceptor && g.Local.Addr == c.Local.Addr && g.Remote == c.Remote
		if !asAcceptor && !asConnector {
			continue
		}
		for _, owner := range g.Owners {
			owners = append(owners, deed.Owner{Comm: owner.Process, PID: owner.PID})
		}
	}
	return owners
}

// agreed asks on a terminal.
func (o *reapOptions) agreed(streams Streams) error {
	if o.yes {
		return nil
	}
	if !terminalOf(streams.In).is {
		return &failedError{errors.New("nothing was reaped: there is no terminal to ask on; --yes does not ask, --dry-run only shows")}
	}
	fmt.Fprint(streams.Err, "Destroy them? [y/N] ")
	line, err := bufio.NewReader(streams.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return &failedError{fmt.Errorf("nothing was reaped: %w", err)}
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return &failedError{errors.New("nothing was reaped")}
	}
	return nil
}

// reap destroys, and tells on a terminal how far it is.
func (o *reapOptions) reap(ctx context.Context, catch *reap.Catch, streams Streams) (*deed.ReapResult, error) {
	ask := reap.Options{StateDir: o.stateDir, Rate: o.rate}
	if canErase(terminalOf(streams.Err), streams.Getenv) {
		began := time.Now()
		ask.Progress = func(done, total int) {
			if time.Since(began) > 2*time.Second {
				fmt.Fprintf(streams.Err, "\r\x1b[K%d of %d sockets", done, total)
			}
		}
		defer fmt.Fprint(streams.Err, "\r\x1b[K")
	}
	return catch.Reap(ctx, ask)
}

// withRights adds what the failure needs.
func withRights(err error) error {
	switch {
	case errors.Is(err, reap.ErrCannotDestroy):
		return fmt.Errorf("%w (needs CONFIG_INET_DIAG_DESTROY, and kernel 6.0 for TIME_WAIT)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (needs root: CAP_NET_ADMIN in the namespace, and a writable --state-dir)", err)
	default:
		return err
	}
}
