package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/render"
	"linger/internal/story"
	"linger/internal/tcp"
)

// The values of --output.
const (
	outputText     = "text"
	outputJSON     = "json"
	outputMarkdown = "markdown"
)

// diagnoseOptions are the flags of linger diagnose.
type diagnoseOptions struct {
	netns      []string
	window     time.Duration
	trace      time.Duration
	output     string
	color      string
	verbose    bool
	failOn     string
	services   []string
	thresholds thresholdOptions
}

func newDiagnose(streams Streams, code *int) *cobra.Command {
	var o diagnoseOptions
	c := &cobra.Command{
		Use:   "diagnose",
		Short: "Say what is wrong, who causes it, and what to do",
		Long: `Look at this host once and say what is wrong with its TIME_WAIT state, who
causes it, and what to do about it. Nothing is changed.

` + ExitCodes("diagnose"),
		Example: `  linger                            every network namespace of this host
  linger --netns 4242               the namespace of process 4242 alone
  linger --netns blue --netns red   two namespaces under /run/netns
  linger --trace 10s                see who closes connections, and who fails to open
  linger -v                         also what holds, and how to check by hand
  linger -o json | jq .findings     for programs (docs/output.md)
  linger -o markdown                for the ticket
  linger --fail-on critical         exit code 0 even if there are warnings`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			*code, err = o.run(c.Context(), streams)
			return err
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(
		&o.netns,
		"netns",
		nil,
		"read this namespace: a `NAME` under /run/netns, a process id, a path, or all; repeatable (default all)",
	)
	flags.DurationVar(&o.window, "window", time.Second, "`TIME` between two readings of the counters; 0 reads them once")
	flags.DurationVar(
		&o.trace,
		"trace",
		0,
		"first have the kernel follow connections for this `TIME`: then who closes them is seen, not inferred",
	)
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON, outputMarkdown)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "tell everything: what holds, each gap, how to check by hand")
	choose(c, &o.failOn, "fail-on", "", "what gives an exit code other than 0", failOnWarning, failOnCritical, failOnNever)
	flags.StringArrayVar(&o.services, "service", nil, "a service that should listen, `[ADDRESS:]PORT`: say what sits on its port; repeatable")
	o.thresholds.add(flags)
	return c
}

// run collects, judges and tells.
func (o *diagnoseOptions) run(ctx context.Context, streams Streams) (int, error) {
	if o.window < 0 {
		return 0, usagef("0 reads the counters once", "--window %s: want no negative time", o.window)
	}
	if o.trace < 0 {
		return 0, usagef("0 does not trace", "--trace %s: want no negative time", o.trace)
	}
	if slices.Contains(o.netns, "") {
		return 0, usagef("want a name under /run/netns, a process id, a path, or all", "--netns is empty")
	}
	thresholds, err := o.thresholds.load()
	if err != nil {
		return 0, err
	}

	services, err := parseServices(slices.Concat(o.thresholds.services, o.services))
	if err != nil {
		return 0, err
	}

	started := time.Now()
	ask := collect.Options{Netns: o.netns, Window: o.window, Trace: o.trace, Services: services}
	stop := func() {}
	if canErase(terminalOf(streams.Err), streams.Getenv) {
		p := startProgress(streams.Err, max(o.window, o.trace))
		ask.Progress, stop = p.report, p.stop
	}
	snapshot, err := collect.Collect(ctx, ask)
	stop()
	if err != nil {
		return 0, unknownNamespace(err)
	}
	diagnosis := diagnose.Judge(snapshot, thresholds)

	if err := quietly(o.print(streams, story.NewDocument(snapshot, diagnosis, time.Since(started)))); err != nil {
		return 0, err
	}
	return codeFor(diagnosis.Findings, o.failOn), nil
}

// parseServices reads [ADDRESS:]PORT.
func parseServices(texts []string) ([]tcp.Endpoint, error) {
	var services []tcp.Endpoint
	for _, text := range texts {
		whole := text
		if !strings.Contains(text, ":") {
			whole = "*:" + text
		}
		service, err := tcp.ParseEndpoint(whole)
		if err != nil || service.Port == 0 {
			return nil, usagef("want a port such as 8080, or 10.0.0.1:8080, or [::1]:8080", "service %q is no service", text)
		}
		services = append(services, service)
	}
	return services, nil
}

func (o *diagnoseOptions) print(streams Streams, d *story.Document) error {
	switch o.output {
	case outputJSON:
		return render.JSON{}.Print(streams.Out, d)
	case outputMarkdown:
		return render.Markdown{}.Print(streams.Out, story.Diagnosis(d, true))
	}
	style := styleFor(terminalOf(streams.Out), streams.Getenv, o.color, o.verbose)
	return render.Text{Style: style}.Print(streams.Out, story.Diagnosis(d, o.verbose))
}
