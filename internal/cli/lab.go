package cli

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"linger/internal/lab"
	"linger/internal/lab/cases"
	"linger/internal/lab/score"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/render"
	"linger/internal/story"
)

// labOptions are the flags of linger lab run and linger lab all.
type labOptions struct {
	remedies []string
	repeat   int
	quick    bool
	output   string
	color    string
	report   string
	pcap     string
}

func newLab(streams Streams, code *int) *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Measure problems, remedies and folklore on this kernel",
		Long: `Build each problem in throw-away network namespaces on this very kernel, apply each
remedy and each piece of folklore to it, and show by measurement what it does. No
packet leaves the namespaces and no setting of the host is written. It needs root,
or a system that lets its users make user namespaces.

` + ExitCodes("lab"),
		Example: `  linger lab list                             what can be measured
  linger lab run tw-reuse                     one experiment, with all its variants
  linger lab run port-exhaustion --remedy pool --repeat 5
  linger lab run why-last-ack --pcap captures with the packets that passed, for Wireshark
  linger lab all --quick                      everything, in less than three minutes
  linger lab all --report lab.html            a page to send to a colleague
  linger lab all --score                      does linger diagnose name each problem?
  linger lab random --count 10                and what is drawn at random?`,
		Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newLabList(streams), newLabRun(streams, code), newLabAll(streams, code), newLabRandom(streams, code))
	return c
}

func newLabList(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the experiments and their variants", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			var all []proof.Proof
			for _, e := range cases.Experiments() {
				p := proof.Proof{Experiment: e.Name, Title: e.Title, Question: e.Question}
				for _, a := range e.Arms[1:] {
					p.Variants = append(p.Variants, proof.Result{Arm: a.Arm})
				}
				all = append(all, p)
			}
			// The answer is the same whatever the stream is: scripts read it.
			return quietly(render.Text{}.PrintExperiments(streams.Out, story.Experiments(all)))
		},
	}
}

func newLabRun(streams Streams, code *int) *cobra.Command {
	var o labOptions
	c := &cobra.Command{
		Use: "run EXPERIMENT...", Short: "Run some experiments",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, e := range cases.Experiments() {
				names = append(names, e.Name+"\t"+e.Title)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, names []string) error {
			chosen, err := o.choose(names)
			if err != nil {
				return err
			}
			*code, err = o.run(c.Context(), streams, chosen)
			return err
		},
	}
	c.Flags().StringArrayVar(&o.remedies, "remedy", nil, "run this `VARIANT` beside the base line, and no other; repeatable")
	o.add(c)
	return c
}

func newLabAll(streams Streams, code *int) *cobra.Command {
	var o labOptions
	var scored bool
	c := &cobra.Command{
		Use: "all", Short: "Run every experiment", Args: noArguments,
		Long: `Run every experiment. With --score, build each problem instead, and each cured state
in fresh namespaces, and compare what linger diagnose names with what was built: the
problem first, in its namespace, of its connections and its process; beside it only
what follows from it; and nothing above information where it is cured. A problem
that this kernel cannot have is told and counts for nothing.

` + ExitCodes("lab all"),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if scored {
				for _, other := range []string{"repeat", "quick", "report"} {
					if c.Flags().Changed(other) {
						return usagef("see `linger lab all --help`", "--score and --%s: a score measures nothing", other)
					}
				}
				*code, err = (&scoreOptions{output: o.output, color: o.color}).run(c.Context(), streams, score.All)
				return err
			}
			*code, err = o.run(c.Context(), streams, cases.Experiments())
			return err
		},
	}
	c.Flags().BoolVar(&scored, "score", false, "build each problem and its cured state, and score what linger diagnose names")
	o.add(c)
	return c
}

func (o *labOptions) add(c *cobra.Command) {
	c.Flags().IntVar(&o.repeat, "repeat", 0, "run each arm `N` times (default 3, or 1 if quick)")
	c.Flags().BoolVar(&o.quick, "quick", false, "run each arm once, without the longest waits")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON, outputMarkdown)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	c.Flags().StringVar(&o.pcap, "pcap", "", "write what passes on the wire, where an experiment has one, to pcap files in this `DIRECTORY`")
	c.Flags().StringVar(&o.report, "report", "", "write a page without outside links to this `FILE`.html as well")
}

// choose finds experiments by their names, and refuses variants that none of them has.
func (o *labOptions) choose(names []string) ([]lab.Experiment, error) {
	const hint = "`linger lab list` lists them"
	if len(names) == 0 {
		return nil, usagef(hint, "no experiment is named")
	}
	var chosen []lab.Experiment
	ids := map[string]bool{}
	for _, name := range names {
		found := false
		for _, e := range cases.Experiments() {
			if e.Name == name {
				chosen, found = append(chosen, e), true
				for _, a := range e.Arms[1:] {
					ids[a.ID] = true
				}
			}
		}
		if !found {
			return nil, usagef(hint, "no experiment %q", name)
		}
	}
	for _, id := range o.remedies {
		if !ids[id] {
			return nil, usagef(hint, "--remedy %s: no variant of %s", id, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

func (o *labOptions) run(ctx context.Context, streams Streams, chosen []lab.Experiment) (int, error) {
	if o.pcap != "" && !slices.ContainsFunc(chosen, func(e lab.Experiment) bool { return e.Wired }) {
		return 0, usagef("those on a wire are "+strings.Join(wired(), ", "), "--pcap: no chosen experiment is on a wire")
	}
	if o.repeat < 0 {
		return 0, usagef("0 is the default", "--repeat %d: want no negative number", o.repeat)
	}
	if !stage.Privileged() {
		return stage.AsRootOfUserNamespace(streams.Out, streams.Err)
	}
	if err := stage.Sweep(); err != nil {
		return 0, err
	}
	if o.pcap != "" {
		if err := os.MkdirAll(o.pcap, 0o755); err != nil {
			return 0, &outputError{err}
		}
	}
	started := time.Now()
	ask := lab.RunOptions{Arms: o.remedies, Repeat: o.repeat, Quick: o.quick, Captures: o.pcap}
	tell, stop := labProgress(streams, "runs")
	ask.Progress = tell
	proofs, err := lab.Run(ctx, chosen, ask)
	stop()
	if err != nil {
		return 0, err
	}
	result := &proof.Lab{
		Measured: measured(render.LabSchema, started), Quick: o.quick, Proofs: proofs,
	}
	if o.report != "" {
		if err := writeReport(o.report, result); err != nil {
			return 0, &outputError{err}
		}
	}
	if o.output == outputJSON {
		err = render.JSON{}.Lab(streams.Out, result)
	} else {
		err = printReport(streams, o.output, o.color, story.Lab(result))
	}
	if err := quietly(err); err != nil {
		return 0, err
	}
	return codeOfProofs(proofs), nil
}

// wired names the experiments on a wire.
func wired() (names []string) {
	for _, e := range cases.Experiments() {
		if e.Wired {
			names = append(names, e.Name)
		}
	}
	return names
}

// writeReport writes the page.
func writeReport(path string, l *proof.Lab) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(render.HTML{}.PrintReport(file, story.Lab(l)), file.Close())
}

// codeOfProofs is 1 where a verdict differs, else 3 where something could not run.
func codeOfProofs(proofs []proof.Proof) int {
	code := exitOK
	for _, p := range proofs {
		if !p.AsExpected() {
			return exitWarning
		}
		if !p.Complete() {
			code = exitUnread
		}
	}
	return code
}

// labProgress tells, on a terminal, how far the laboratory is; stop removes the line.
func labProgress(streams Streams, what string) (tell func(lab.Progress), stop func()) {
	if !canErase(terminalOf(streams.Err), streams.Getenv) {
		return nil, func() {}
	}
	p := startProgress(streams.Err, 0)
	return func(now lab.Progress) { p.reportLeft(now.Done, now.Total, what, now.Left) }, p.stop
}

// printReport writes what the laboratory measured, for people.
func printReport(streams Streams, output, color string, r *story.Report) error {
	if output == outputMarkdown {
		return render.Markdown{}.PrintReport(streams.Out, r)
	}
	return render.Text{Style: styleFor(terminalOf(streams.Out), streams.Getenv, color, false)}.PrintReport(streams.Out, r)
}

// measured begins a document of what the laboratory has measured until now.
func measured(schema string, started time.Time) proof.Measured {
	return proof.Measured{
		Schema: schema, TakenAt: started.UTC(), ElapsedMS: time.Since(started).Milliseconds(),
		Kernel: kernelRelease(), CPUs: runtime.NumCPU(),
	}
}

// kernelRelease is what uname -r prints.
func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}
