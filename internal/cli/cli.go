// Package cli is linger's command line: one file for each command, flags in,
// exit code out. It decides nothing about a host; it asks the other rooms and
// chooses how their answer is written.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"linger/internal/change"
	"linger/internal/journal"
	"linger/internal/story"
)

// Run runs one command line, without the program's name, and returns the exit
// code. A cancelled ctx makes it tell what it has.
func Run(ctx context.Context, args []string, streams Streams) int {
	code := exitOK
	root := newRoot(streams, &code)
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		complain(streams.Err, err)
		return codeOf(err)
	}
	return code
}

// Root is linger's command as a whole, for what tells of it: its manual pages.
func Root() *cobra.Command {
	return newRoot(Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}, new(int))
}

// complain writes an error and what to do about it, in one line.
func complain(w io.Writer, err error) {
	text := "linger: " + err.Error()
	var usage *usageError
	if errors.As(err, &usage) && usage.hint != "" {
		text += "; " + usage.hint
	}
	fmt.Fprintln(w, story.Clean(text))
}

// newRoot is linger itself, which does what linger diagnose does. A command that
// ran to its end leaves its exit code in code.
func newRoot(streams Streams, code *int) *cobra.Command {
	root := newDiagnose(streams, code)
	root.Use = "linger"
	root.Long = `linger says what is wrong with this host's TCP TIME_WAIT state, who causes it,
and what to change. It changes nothing but what you "apply" or "reap"; what you
applied and did not confirm in time is taken back, by the next linger at the latest.

Without a command it does what "linger diagnose" does. As root it sees every
network namespace and names every process.`
	root.Version = buildOf().Version
	root.SetVersionTemplate("linger {{.Version}}\n")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.Args = noCommand
	root.SuggestionsMinimumDistance = 2
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err: err, hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
	})
	root.PersistentPreRun = func(c *cobra.Command, _ []string) { resume(c, streams) }
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(
		newDiagnose(streams, code),
		newSockets(streams),
		newTrace(streams, code),
		newPlan(streams, code),
		newApply(streams),
		newConfirm(streams),
		newRollback(streams),
		newStatus(streams),
		newHistory(streams),
		newDiff(streams),
		newReap(streams, code),
		newWatch(),
		newProve(streams, code),
		newLab(streams, code),
		newExplain(streams),
		newThresholds(streams),
		newVersion(streams),
	)
	return root
}

// resume goes on with what a process of linger's that was killed has left, whatever this
// command is about: the promise was that values go back unless they are confirmed.
func resume(c *cobra.Command, streams Streams) {
	if c.Name() == change.WatchCommand || strings.HasPrefix(c.Name(), "__") {
		return
	}
	dir := journal.DefaultDir
	if flag := c.Flags().Lookup("state-dir"); flag != nil {
		dir = flag.Value.String()
	}
	left, err := change.Resume(dir)
	for _, e := range left {
		fmt.Fprintln(streams.Err, "linger:", story.Settled(e.ID, e.State, e.Reason))
	}
	if err != nil {
		fmt.Fprintln(streams.Err, story.Clean("linger: "+err.Error()))
	}
}

// noCommand refuses what is neither a command nor a flag.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see `linger --help`"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean `linger " + near[0] + "`?"
	}
	return usagef(hint, "unknown command %q", args[0])
}

// newHelp is linger help, which refuses what is no command.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(root, args)
			}
			return c.Help()
		},
	}
}

// noArguments refuses arguments of a command that takes none.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef(fmt.Sprintf("see `%s --help`", c.CommandPath()), "unexpected argument %q", args[0])
}

// choice is a flag that takes one of a few words.
type choice struct {
	value   *string
	allowed []string
}

// choose adds a choice to a command's flags; the first word allowed is the
// default.
func choose(c *cobra.Command, value *string, name, short, usage string, allowed ...string) {
	*value = allowed[0]
	c.Flags().VarP(&choice{value, allowed}, name, short, usage)
	// The only error is that of a flag which does not exist.
	_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }

// Set is called by pflag, which writes the flag's name before the error.
func (c *choice) Set(text string) error {
	if !slices.Contains(c.allowed, text) {
		return fmt.Errorf("want %s", strings.Join(c.allowed, ", "))
	}
	*c.value = text
	return nil
}
