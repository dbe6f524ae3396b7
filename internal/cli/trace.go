package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/collect"
	"linger/internal/render"
	"linger/internal/snapshot"
	"linger/internal/story"
	"linger/internal/tcp"
)

const outputLines = "jsonl"

// traceOptions are the flags of linger trace.
type traceOptions struct {
	netns    []string
	interval time.Duration
	by       string
	wide     bool
	output   string
	color    string

	events   bool
	process  string
	role     string
	port     uint16
	remote   string
	least    time.Duration
	endings  []string
	duration time.Duration
}

func newTrace(streams Streams, code *int) *cobra.Command {
	var o traceOptions
	c := &cobra.Command{
		Use:   "trace [-- COMMAND ARGUMENT...]",
		Short: "Watch who opens and closes connections, as the kernel sees it",
		Long: `Follow the connections of this host in the kernel and tell who opens them, which
side closes them, how they end, and how long they live. Nothing is changed, and
nothing is left behind. It takes root and kernel 5.8.

With a command it runs that, and when it has ended tells what it and its
children did; the exit code is then the command's own.

SIGINT ends it with the totals. docs/tracing.md says what each number means.`,
		Example: `  linger trace                          a table, once a second
  linger trace --by destination         by service in place of process
  linger trace --by reason              why connections end
  linger trace -o jsonl                 for programs (docs/output.md)
  linger trace --events --ended-by reset-there
                                        each connection that a peer has reset
  linger trace -- curl -s http://10.0.0.1/
                                        what one command does`,
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 0 {
				return noArguments(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			*code, err = o.run(c.Context(), streams, args)
			return err
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(&o.netns, "netns", nil, "only this namespace: a `NAME` under /run/netns, a process id, or a path; repeatable")
	flags.DurationVar(&o.interval, "interval", time.Second, "`TIME` between two tables")
	flags.DurationVar(&o.duration, "for", 0, "end after this `TIME`; 0 goes on until SIGINT")
	choose(
		c,
		&o.by,
		"by",
		"",
		"what a row of the table is about",
		string(story.ByProcess),
		string(story.ByContainer),
		string(story.ByDestination),
		string(story.ByReason),
	)
	flags.BoolVar(&o.wide, "wide", false, "also how many bytes a connection has sent and received")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputLines)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	flags.BoolVar(&o.events, "events", false, "tell each connection when it ends; the flags below say which")
	flags.StringVar(&o.process, "process", "", "with --events: of the program of this `NAME`")
	flags.StringVar(&o.role, "role", "", "with --events: `connector|acceptor`")
	flags.Uint16Var(&o.port, "port", 0, "with --events: with this `PORT` at either end")
	flags.StringVar(&o.remote, "remote", "", "with --events: with this remote `ADDRESS` or prefix")
	flags.DurationVar(&o.least, "longer-than", 0, "with --events: that lived at least this `TIME`")
	flags.StringSliceVar(
		&o.endings,
		"ended-by",
		nil,
		"with --events: that ended by one of these `WORDS`: "+strings.Join(collect.EndingNames(), ", "),
	)
	return c
}

// filter is what --events and its flags ask for.
func (o *traceOptions) filter() (*collect.EventFilter, error) {
	f := &collect.EventFilter{Process: o.process, Role: tcp.Role(o.role), Port: o.port, LeastLife: o.least, Endings: o.endings}
	if o.role != "" && f.Role != tcp.Connector && f.Role != tcp.Acceptor {
		return nil, usagef("want connector or acceptor", "--role %q is no role", o.role)
	}
	for _, word := range o.endings {
		if !slices.Contains(collect.EndingNames(), word) {
			return nil, usagef("want "+strings.Join(collect.EndingNames(), ", "), "--ended-by %q is no such word", word)
		}
	}
	if o.remote != "" {
		prefix, err := netip.ParsePrefix(o.remote)
		if err != nil {
			addr, err := netip.ParseAddr(o.remote)
			if err != nil {
				return nil, usagef("want an address such as 10.0.0.1, or a prefix such as 10.0.0.0/8", "--remote %q is no address", o.remote)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		f.Remote = prefix
	}
	if o.events {
		return f, nil
	}
	if o.process != "" || o.role != "" || o.port != 0 || o.remote != "" || o.least != 0 || len(o.endings) > 0 {
		return nil, usagef("add --events", "--process, --role, --port, --remote, --longer-than and --ended-by choose among single connections")
	}
	return nil, nil
}

func (o *traceOptions) run(ctx context.Context, streams Streams, command []string) (int, error) {
	if o.interval < 100*time.Millisecond {
		return 0, usagef("want 100ms at least", "--interval %s is too short", o.interval)
	}
	if o.duration < 0 {
		return 0, usagef("0 goes on until SIGINT", "--for %s: want no negative time", o.duration)
	}
	filter, err := o.filter()
	if err != nil {
		return 0, err
	}
	trace, err := collect.StartTrace(ctx, collect.TraceOptions{Netns: o.netns, Command: len(command) > 0, Events: filter})
	if errors.Is(err, collect.ErrUnknownNamespace) {
		return 0, &usageError{err: err, hint: "`ip netns list` and `lsns -t net` tell which there are"}
	}
	if err != nil {
		return 0, err
	}
	defer trace.Close()
	if o.duration > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, o.duration)
		defer stop()
	}
	t := &tracing{options: o, streams: streams, trace: trace}
	switch {
	case len(command) > 0:
		return t.command(ctx, command)
	case o.events:
		return exitOK, t.events(ctx)
	default:
		return exitOK, t.table(ctx)
	}
}

// tracing is one run of linger trace.
type tracing struct {
	options *traceOptions
	streams Streams
	trace   *collect.Trace
}

// print writes a table of at most so many rows, 0 for all. It returns how many lines it wrote.
func (t *tracing) print(to io.Writer, traced *snapshot.Traced, rows int, total bool) (lines int, err error) {
	out := terminalOf(to)
	table := render.Table{Style: styleFor(out, t.streams.Getenv, t.options.color, false)}
	if out.is {
		table.Cut = table.Style.Width
	}
	form := story.TraceForm{By: story.TraceBy(t.options.by), Wide: t.options.wide, Rows: rows, Total: total}
	return table.Print(to, story.Trace(traced, form))
}

// liveRows is how many rows a table that is drawn over has: with its other lines, and that of the
// cursor, it must fit the screen, of which at least so many rows are taken for granted.
func liveRows(screen terminal) int {
	const others, least = 7, 3
	return max(least, screen.rows-others)
}

// table writes a table for each interval, and the totals when ctx is cancelled.
func (t *tracing) table(ctx context.Context) error {
	screen := terminalOf(t.streams.Out)
	live := canErase(screen, t.streams.Getenv)
	rows := 0
	if live {
		rows = liveRows(screen)
	}
	before := t.trace.Beginning()
	tick := time.NewTicker(t.options.interval)
	defer tick.Stop()
	drawn := 0
	over := func() string {
		if !live {
			return ""
		}
		return screen.over(drawn)
	}
	for {
		select {
		case <-ctx.Done():
			return t.total(before, over())
		case <-tick.C:
		}
		now, err := t.trace.Read(ctx)
		if err != nil {
			return err
		}
		interval := now.Since(before)
		before = now
		if t.options.output == outputLines {
			err = render.TraceLines{}.Interval(t.streams.Out, interval)
		} else {
			fmt.Fprint(t.streams.Out, over())
			drawn, err = t.print(t.streams.Out, interval, rows, false)
		}
		if gone, err := left(err); gone || err != nil {
			return err
		}
	}
}

// left tells whether the reader has gone, which is no error.
func left(err error) (bool, error) {
	if err == nil {
		return false, nil
	}
	return true, quietly(err)
}

// total writes the sums since the beginning, over what was drawn; for programs the rows since the last interval come
// first, so that all rows add up to it.
func (t *tracing) total(before *snapshot.Traced, over string) error {
	// The context has ended, and what is there must still be read.
	all, err := t.trace.Read(context.Background())
	if err != nil {
		return err
	}
	if t.options.output == outputLines {
		var err error
		if before != nil {
			err = render.TraceLines{}.Interval(t.streams.Out, all.Since(before))
		}
		return quietly(errors.Join(err, render.TraceLines{}.Total(t.streams.Out, all)))
	}
	fmt.Fprint(t.streams.Out, over)
	_, err = t.print(t.streams.Out, all, 0, true)
	return quietly(err)
}

// events writes a line for each connection that ends, and the totals when ctx is cancelled.
func (t *tracing) events(ctx context.Context) error {
	if err := t.ends(ctx); err != nil {
		return quietly(err)
	}
	return t.total(nil, "")
}

// ends writes a line for each connection that ends.
func (t *tracing) ends(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { t.keepReading(ctx) })
	defer reading.Wait()
	defer stop()
	text := render.Text{Style: styleFor(terminalOf(t.streams.Out), t.streams.Getenv, t.options.color, false)}
	var failed error // the first failure to write
	untold, err := t.trace.Events(ctx, func(e *snapshot.EndedConnection) {
		var err error
		if t.options.output == outputLines {
			err = render.TraceLines{}.End(t.streams.Out, e)
		} else {
			err = text.Lines(t.streams.Out, []story.Text{story.TraceEnd(e)})
		}
		if err != nil && failed == nil {
			failed = err
			stop()
		}
	})
	if err != nil {
		return err
	}
	if untold > 0 && t.options.output != outputLines {
		fmt.Fprintln(t.streams.Err, "linger:", story.TraceUntold(untold))
	}
	return failed
}

// keepReading reads what is counted, where nobody asks for it before the end: collect.Trace.Read
// says why.
func (t *tracing) keepReading(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := t.trace.Read(ctx); err != nil {
			return // the last reading fails too, and says so
		}
	}
}

// command runs a command and tells what it did. Its output goes where linger's goes, so that the
// answer is on standard error, unless it is for a program.
func (t *tracing) command(ctx context.Context, args []string) (int, error) {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = t.streams.In, t.streams.Out, t.streams.Err
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	if err := c.Start(); err != nil {
		return 0, usagef("want a program that can be started", "%w", err)
	}
	told, over := context.WithCancel(context.Background())
	defer over()
	ends := make(chan error, 1)
	go func() {
		if !t.options.events {
			t.keepReading(told)
			ends <- nil
			return
		}
		ends <- t.ends(told)
	}()
	err := c.Wait()
	over()
	if err := <-ends; err != nil {
		return 0, quietly(err)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	code := c.ProcessState.ExitCode()
	if code < 0 {
		code = 128 + int(exitSignal(c.ProcessState)) // as a shell says it
	}
	all, err := t.trace.Read(context.Background())
	if err != nil {
		return 0, err
	}
	if t.options.output == outputLines {
		return code, quietly(errors.Join(render.TraceLines{}.Interval(t.streams.Out, all), render.TraceLines{}.Total(t.streams.Out, all)))
	}
	_, err = t.print(t.streams.Err, all, 0, true)
	return code, quietly(err)
}

// exitSignal is the signal that ended a process.
func exitSignal(state *os.ProcessState) syscall.Signal {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return 0
}
