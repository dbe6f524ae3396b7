package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"linger/internal/change"
	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/plan"
	"linger/internal/render"
	"linger/internal/story"
)

// changeOptions are the flags that all commands of change share.
type changeOptions struct {
	stateDir string
	output   string
	color    string
}

func (o *changeOptions) add(c *cobra.Command) {
	c.Flags().StringVar(&o.stateDir, "state-dir", journal.DefaultDir, "keep the journal in this `DIRECTORY`")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
}

// tell writes one change, and what keeps it.
func (o *changeOptions) tell(streams Streams, e *change.Entry, kept *change.Keeps) error {
	r := e.Report(o.stateDir)
	if kept != nil {
		r.Manifest, r.Notes = kept.Manifest, append(r.Notes, kept.Notes...)
	}
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, r))
	}
	return quietly(o.text(streams).Print(streams.Out, story.Change(&r)))
}

func (o *changeOptions) text(streams Streams) render.Text {
	return render.Text{Style: styleFor(terminalOf(streams.Out), streams.Getenv, o.color, false)}
}

func encodeJSON(streams Streams, document any) error {
	e := json.NewEncoder(streams.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(document)
}

// applyOptions are the flags of linger apply.
type applyOptions struct {
	changeOptions
	plan   planOptions
	within time.Duration
	guard  string
	live   bool
}

func newApply(streams Streams) *cobra.Command {
	var o applyOptions
	c := &cobra.Command{
		Use:   "apply PLAN|PROBLEM",
		Short: "Change the running host, and back again unless that is confirmed",
		Long: `Write the values of a plan at run time: of a file that "linger plan --out" wrote,
of standard input (-), or of a plan that is made now for a problem. It asks
nothing and returns at once. Unless "linger confirm" comes in time, a process of
its own writes the old values back.

It refuses a plan that no longer fits: of another host, boot or namespace, with
another present value, or with a key that is pending already.

` + ExitCodes("apply"),
		Example: `  linger apply plan.json                       10 minutes to confirm
  linger apply tw-reuse --confirm-within 90s
  id=$(linger apply plan.json -o json | jq -r .id)`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("see `linger apply --help`", "want one plan or one problem, got %d", len(args))
			}
			return o.run(c.Context(), streams, args[0])
		},
	}
	o.add(c)
	o.flags(c.Flags())
	choose(c, &o.guard, "guard", "", "what to do when more connections fail than before",
		string(deed.GuardWarn), string(deed.GuardRollback), string(deed.GuardOff))
	return c
}

func (o *applyOptions) flags(flags *pflag.FlagSet) {
	flags.DurationVar(&o.within, "confirm-within", 10*time.Minute, "`TIME` to confirm, from 1s on")
	flags.BoolVar(&o.live, "live", false, "change namespaces other than this shell's, while their programs run")
	flags.StringArrayVar(&o.plan.netns, "netns", nil,
		"plan for a problem in this namespace alone: a `NAME` under /run/netns, a process id, or a path; repeatable")
}

func (o *applyOptions) run(ctx context.Context, streams Streams, what string) error {
	if o.within < time.Second {
		return usagef("want 1s at least", "--confirm-within %s", o.within)
	}
	p, err := o.load(ctx, streams, what)
	if err != nil {
		return err
	}
	e, err := change.Apply(ctx, p, change.Options{
		StateDir: o.stateDir, Within: o.within, Guard: deed.GuardMode(o.guard), Live: o.live,
		Wait: func(left time.Duration) { fmt.Fprintln(streams.Err, "linger:", story.Waiting(left)) },
	})
	if err != nil {
		return &failedError{needsRoot(err)}
	}
	return o.tell(streams, e, nil)
}

// load reads a plan, or makes one for a problem. A path with a slash is always a file.
func (o *applyOptions) load(ctx context.Context, streams Streams, what string) (*plan.Plan, error) {
	if slices.Contains(problemNames(), what) {
		o.plan.problems, o.plan.window = []string{what}, time.Second
		return o.plan.make(ctx, streams)
	}
	if len(o.plan.netns) > 0 {
		return nil, usagef("it says where to plan for a problem; `linger plan --netns` makes another plan",
			"--netns: the plan names its namespaces")
	}
	if what == "-" {
		p, err := plan.Parse(streams.In)
		if err != nil {
			return nil, &failedError{err}
		}
		return p, nil
	}
	f, err := os.Open(what)
	if errors.Is(err, fs.ErrNotExist) && !strings.Contains(what, "/") {
		return nil, usagef("`linger plan --out FILE` makes a plan, `linger explain` lists the problems", "%s is no file and no problem", what)
	}
	if err != nil {
		return nil, &failedError{err}
	}
	defer f.Close()
	p, err := plan.Parse(f)
	if err != nil {
		return nil, &failedError{fmt.Errorf("%s: %w", what, err)}
	}
	return p, nil
}

func newConfirm(streams Streams) *cobra.Command {
	var o changeOptions
	var persist bool
	var emit string
	c := &cobra.Command{
		Use:   "confirm ID",
		Short: "Keep a change until the next boot",
		Long: `Keep the values of a pending change. They are run-time values: the next boot
begins without them, unless --persist keeps them: in a file of sysctl.d that
really has the last word, or else nothing is confirmed. For a pod or container it
prints the patch of the manifest. --emit adds a snippet for who keeps settings
elsewhere.

` + ExitCodes("confirm"),
		Example: `  linger confirm 20260102-1f2e3d4c
  linger confirm 20260102-1f2e3d4c --persist
  linger confirm 20260102-1f2e3d4c --emit ansible`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("`linger status` tells the id", "want one id, got %d", len(args))
			}
			return o.confirm(streams, args[0], persist, emit)
		},
	}
	o.add(c)
	c.Flags().BoolVar(&persist, "persist", false, "also keep the values over a boot")
	choose(c, &emit, "emit", "", "also write the settings as a snippet", emitNone, plan.EmitSysctl, plan.EmitK8s, plan.EmitAnsible)
	return c
}

func (o *changeOptions) confirm(streams Streams, id string, persist bool, emit string) (err error) {
	kept := &change.Keeps{}
	var e *change.Entry
	if persist {
		e, kept, err = change.ConfirmAndKeep(o.stateDir, "/", id)
	} else {
		e, err = change.Confirm(o.stateDir, id)
	}
	if err != nil {
		return &failedError{needsRoot(err)}
	}
	if emit != emitNone {
		snippet, err := plan.Emit(emit, e.Plan.Changes)
		if err != nil {
			return &failedError{fmt.Errorf("change %s is confirmed, and no snippet can be written: %w", id, err)}
		}
		kept.Manifest += snippet
	}
	return o.tell(streams, e, kept)
}

// needsRoot adds what a failure for want of rights needs.
func needsRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (needs root, and a --state-dir that it may write)", err)
	}
	return err
}

func newRollback(streams Streams) *cobra.Command {
	var o changeOptions
	var last, force bool
	c := &cobra.Command{
		Use:   "rollback ID|--last",
		Short: "Take a change back",
		Long: `Write the old values of a change back, pending or confirmed, and read them back.
A value that others have changed since is shown and kept, unless --force. A file
that keeps the change over a boot is taken away.

` + ExitCodes("rollback"),
		Example: `  linger rollback --last
  linger rollback 20260102-1f2e3d4c --force`,
		RunE: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == last || len(args) > 1 {
				return usagef("`linger history` tells the ids", "want one id, or --last")
			}
			var id string
			var err error
			if last {
				id, err = change.Last(o.stateDir)
			} else {
				id = args[0]
			}
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			e, err := change.Rollback(o.stateDir, id, force)
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			return o.tell(streams, e, nil)
		},
	}
	o.add(c)
	c.Flags().BoolVar(&last, "last", false, "the latest change that is in force")
	c.Flags().BoolVar(&force, "force", false, "also write back values that others have changed since")
	return c
}

// newWatch is what a watcher runs; nobody types it.
func newWatch() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:    change.WatchCommand + " ID",
		Short:  "Take a change back at its deadline; linger apply starts it",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			// The end of a session, and its terminal, are no reason to end.
			if err := change.Watch(context.WithoutCancel(c.Context()), dir, args[0]); err != nil {
				return &failedError{err}
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "state-dir", journal.DefaultDir, "`DIRECTORY` of the journal")
	return c
}
