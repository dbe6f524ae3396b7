package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/lab"
	"linger/internal/lab/prove"
	"linger/internal/lab/stage"
	"linger/internal/plan"
	"linger/internal/proof"
	"linger/internal/render"
	"linger/internal/setting"
	"linger/internal/story"
)

// proveOptions are the flags of linger prove.
type proveOptions struct {
	netns  []string
	repeat int
	output string
	color  string
}

func newProve(streams Streams, code *int) *cobra.Command {
	var o proveOptions
	c := &cobra.Command{
		Use:   "prove PLAN|PROBLEM",
		Short: "Measure what a plan would do, in throw-away namespaces",
		Long: `Measure each change of a plan before it is made: of a file that "linger plan --out"
wrote, of standard input (-), or of a plan that is made now for a problem. In
throw-away network namespaces the present values of the place are the base line,
and the plan's value is the remedy. The place itself is read and never written.

A key that the kernel keeps once for the whole host is never written either: it
cannot be built. Where numbers of this host are too large for a laboratory, both
values are divided by the same one, and that is told.

` + ExitCodes("prove"),
		Example: `  linger plan port-exhaustion --out p.json
  linger prove p.json                before linger apply p.json
  linger plan --set net.ipv4.tcp_tw_reuse=1 -o json | linger prove -
  linger prove tw-reuse --repeat 6   with an interval of 95 %`,
		ValidArgs: problemNames(),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("see `linger prove --help`", "want one plan or one problem, got %d", len(args))
			}
			var err error
			*code, err = o.run(c.Context(), streams, args[0])
			return err
		},
	}
	c.Flags().
		StringArrayVar(&o.netns, "netns", nil, "plan for a problem in this namespace alone: a `NAME` under /run/netns, a process "+
			"id, or a path; repeatable")
	c.Flags().IntVar(&o.repeat, "repeat", 3, "run each arm `N` times")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON, outputMarkdown)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	return c
}

func (o *proveOptions) run(ctx context.Context, streams Streams, what string) (int, error) {
	if o.repeat < 1 {
		return 0, usagef("3 is the default", "--repeat %d: want 1 at least", o.repeat)
	}
	if !stage.Privileged() {
		if slices.Contains(problemNames(), what) {
			return 0, fmt.Errorf("a plan for a problem of this host needs root: make it with `linger plan %s --out FILE`, and prove the file", what)
		}
		return stage.AsRootOfUserNamespace(streams.Out, streams.Err)
	}
	p, err := o.load(ctx, streams, what)
	if err != nil {
		return 0, err
	}
	if err := stage.Sweep(); err != nil {
		return 0, err
	}
	started := time.Now()
	changes, experiments := proofsOf(p)
	tell, stop := labProgress(streams, "runs")
	proofs, err := lab.Run(ctx, experiments, lab.RunOptions{Repeat: o.repeat, Progress: tell})
	stop()
	if err != nil {
		return 0, err
	}
	for i := range changes {
		take(&changes[i], proofs[i])
	}
	result := &proof.Proved{Measured: measured(render.ProveSchema, started), Changes: changes}
	if o.output == outputJSON {
		err = render.JSON{}.Proved(streams.Out, result)
	} else {
		err = printReport(streams, o.output, o.color, story.Prove(result))
	}
	return codeOfProved(result.Changes), quietly(err)
}

// load reads the plan, or makes one. What is no plan is a wrong command line.
func (o *proveOptions) load(ctx context.Context, streams Streams, what string) (*plan.Plan, error) {
	loader := applyOptions{plan: planOptions{netns: o.netns}}
	p, err := loader.load(ctx, streams, what)
	var failed *failedError
	if !errors.As(err, &failed) {
		return p, err
	}
	if slices.Contains(problemNames(), what) {
		return nil, failed.err
	}
	return nil, &usageError{err: failed.err, hint: "`linger plan --out FILE` makes a plan"}
}

// take keeps the proof of a change.
func take(c *proof.ProvedChange, p proof.Proof) {
	c.Proof, c.Cannot = p, p.Cannot
	if c.Cannot != "" {
		return
	}
	for _, r := range p.All() {
		if r.Cannot != "" {
			c.Cannot = r.Cannot
			return
		}
	}
	c.Verdict, c.Because = p.Variants[0].Verdict, p.Variants[0].Because
}

// proofsOf makes an experiment of each change, with the present values of its place as
// the base line and the changes before it made.
func proofsOf(p *plan.Plan) (changes []proof.ProvedChange, experiments []lab.Experiment) {
	changes = []proof.ProvedChange{} // and no null in JSON
	for i, c := range p.Changes {
		present, note := presentOf(c.Scope)
		proved := proof.ProvedChange{Scope: c.Scope.String(), Key: c.Key, Old: c.Old, New: c.New, Notes: []string{}}
		if note != "" {
			proved.Notes = append(proved.Notes, note)
		}
		if now, known := present[c.Key]; known && !plan.Same(now, c.Old) {
			if plan.Same(now, c.New) {
				proved.Notes = append(proved.Notes, "this is the present value already; the base line has the old value of the plan")
			} else {
				proved.Notes = append(proved.Notes, fmt.Sprintf("the present value is %s, and not the %s of the plan: it is the base line", now, c.Old))
				proved.Old = now
			}
		}
		for j, other := range p.Changes {
			// A range that is wider is what a reservation is for.
			if other.Scope.Same(c.Scope) && (j < i || j > i && c.Key == setting.LocalReservedPorts && other.Key == setting.LocalPortRange) {
				present[other.Key] = other.New
			}
		}
		delete(present, c.Key)
		changes = append(changes, proved)
		proposal := prove.Proposal{Key: c.Key, Old: proved.Old, New: c.New, HostWide: c.Scope.HostWide, Beside: present}
		experiments = append(experiments, proposal.Experiment())
	}
	return changes, experiments
}

// presentOf are the present settings of a plan's place. Where nothing leads to it any
// more, or the plan is of another host, the kernel's defaults are all there is.
func presentOf(s plan.Scope) (present map[string]string, note string) {
	if s.HostWide {
		return map[string]string{}, ""
	}
	settings, err := prove.SettingsOf(s.Path, s.Cookie, s.Inode)
	switch {
	case err == nil:
		return maps.Clone(settings), ""
	case errors.Is(err, fs.ErrPermission):
		note = "the present values of " + s.String() + " need root"
	default:
		note = s.String() + " is not on this host now"
	}
	return map[string]string{}, note + ": the base line has the plan's old values and the kernel's defaults"
}

// codeOfProved is 1 where a change does not work, else 3 where one could not be
// measured.
func codeOfProved(changes []proof.ProvedChange) int {
	code := exitOK
	for _, c := range changes {
		switch {
		case c.Cannot != "":
			code = exitUnread
		case c.Verdict != proof.Works:
			return exitWarning
		}
	}
	return code
}
