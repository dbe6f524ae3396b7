package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/plan"
	"linger/internal/remedy"
	"linger/internal/render"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/story"
)

// emitNone is the value of --emit for the plan itself.
const emitNone = "none"

// planOptions are the flags of linger plan.
type planOptions struct {
	problems []string
	set      []string
	netns    []string
	window   time.Duration
	out      string
	output   string
	emit     string
	color    string
	verbose  bool
	detailed bool
	force    bool
}

func newPlan(streams Streams, code *int) *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use:   "plan [PROBLEM...]",
		Short: "Say what to change, and what that would do; changes nothing",
		Long: `Make a plan: each setting to change with its place, its old and new value, why,
what it moves in numbers, and its risk. Nothing is changed: "linger apply" does
what a plan says.

Without a problem it plans for all that are found. What is known to harm is
refused, with what to do instead. For the time of --window it counts connections,
and as root follows them in the kernel: the base line of the guard of
"linger apply".

` + ExitCodes("plan"),
		Example: `  linger plan                          for all that is wrong on this host
  linger plan port-exhaustion --out p  write it to a file, for linger apply p
  linger plan --set net.ipv4.tcp_tw_reuse=1 --netns blue
  linger plan -o json | jq '.changes[] | {key, old, new}'`,
		ValidArgs: problemNames(),
		RunE: func(c *cobra.Command, args []string) error {
			o.problems = args
			var err error
			*code, err = o.run(c.Context(), streams)
			return err
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(
		&o.set,
		"set",
		nil,
		"plan this setting, `KEY=VALUE`, in the namespaces of --netns, or else in linger's own; repeatable",
	)
	flags.StringArrayVar(&o.netns, "netns", nil, "this namespace alone: a `NAME` under /run/netns, a process id, or a path; repeatable")
	flags.DurationVar(&o.window, "window", time.Second, "`TIME` between two readings of the counters")
	flags.StringVar(&o.out, "out", "", "also write the plan, as JSON, to this `FILE`")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON)
	choose(
		c,
		&o.emit,
		"emit",
		"",
		"write the settings as a snippet in place of the plan",
		emitNone,
		plan.EmitSysctl,
		plan.EmitK8s,
		plan.EmitAnsible,
	)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "tell everything: mechanism, what else is touched, what keeps it")
	flags.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 2 if there is something to change")
	flags.BoolVar(&o.force, "force", false, "plan what linger refuses but the kernel takes; it is noted in the plan")
	return c
}

func problemNames() []string {
	var names []string
	for _, rule := range diagnose.Rules() {
		names = append(names, string(rule.Slug))
	}
	return names
}

func (o *planOptions) run(ctx context.Context, streams Streams) (int, error) {
	p, err := o.make(ctx, streams)
	if err != nil {
		return 0, err
	}
	if o.out != "" {
		if err := writePlan(o.out, p); err != nil {
			return 0, &failedError{err}
		}
	}
	switch {
	case o.emit != emitNone:
		var snippet string
		if snippet, err = plan.Emit(o.emit, p.Changes); err != nil {
			return 0, &failedError{err}
		}
		_, err = io.WriteString(streams.Out, snippet)
	case o.output == outputJSON:
		err = render.JSON{}.Plan(streams.Out, p)
	default:
		style := styleFor(terminalOf(streams.Out), streams.Getenv, o.color, o.verbose)
		err = render.Text{Style: style}.Print(streams.Out, story.Plan(p))
	}
	if err := quietly(err); err != nil {
		return 0, err
	}
	if o.detailed && len(p.Changes) > 0 {
		return exitChanges, nil
	}
	return exitOK, nil
}

// make reads the host and makes the plan.
func (o *planOptions) make(ctx context.Context, streams Streams) (*plan.Plan, error) {
	wish := plan.Wish{Force: o.force}
	for _, name := range o.problems {
		if !slices.Contains(problemNames(), name) {
			return nil, usagef("see `linger explain` for the problems", "no such problem: %s", name)
		}
		wish.Problems = append(wish.Problems, diagnose.Slug(name))
	}
	for _, text := range o.set {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, usagef("want KEY=VALUE, such as "+setting.TWReuse+"=1", "--set %s", text)
		}
		wish.Set = append(wish.Set, remedy.Assignment{Key: strings.TrimSpace(key), Value: strings.Join(strings.Fields(value), " ")})
	}
	if o.window < 0 {
		return nil, usagef("0 reads the counters once", "--window %s: want no negative time", o.window)
	}
	if len(o.netns) == 0 {
		wish.In = func(ns *snapshot.Namespace) bool { return ns.Own }
	}
	s, err := look(ctx, streams, o.netns, o.window)
	if err != nil {
		return nil, err
	}
	p, err := plan.Make(s, diagnose.Judge(s, diagnose.DefaultThresholds()), wish)
	if err != nil {
		return nil, &failedError{err}
	}
	return p, nil
}

// look reads the host, or the namespaces that are named.
func look(ctx context.Context, streams Streams, netns []string, window time.Duration) (*snapshot.Snapshot, error) {
	if slices.Contains(netns, "") {
		return nil, usagef("want a name under /run/netns, a process id, or a path", "--netns is empty")
	}
	// What the kernel shows of the connections meanwhile is the guard's base line.
	ask := collect.Options{Netns: netns, Window: window, Trace: window}
	stop := func() {}
	if canErase(terminalOf(streams.Err), streams.Getenv) {
		p := startProgress(streams.Err, window)
		ask.Progress, stop = p.report, p.stop
	}
	s, err := collect.Collect(ctx, ask)
	stop()
	switch {
	case errors.Is(err, collect.ErrUnknownNamespace):
		return nil, &usageError{err: err, hint: "`ip netns list` and `lsns -t net` tell which there are"}
	case err != nil:
		return nil, &failedError{err}
	case ctx.Err() != nil:
		return nil, &failedError{fmt.Errorf("interrupted: %w", context.Cause(ctx))}
	}
	return s, nil
}

// writePlan replaces the file as a whole, so that no half of a plan can be applied.
func writePlan(path string, p *plan.Plan) error {
	var text bytes.Buffer
	if err := (render.JSON{}).Plan(&text, p); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".linger-plan-*")
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	_, err = f.Write(text.Bytes())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the plan: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
