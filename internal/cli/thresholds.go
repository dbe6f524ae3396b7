package cli

import (
	"github.com/spf13/cobra"

	"linger/internal/render"
	"linger/internal/story"
)

func newThresholds(streams Streams) *cobra.Command {
	var o thresholdOptions
	c := &cobra.Command{
		Use:   "thresholds",
		Short: "List the numbers from which on something is a problem, and why",
		Long: `List every threshold with its value and the reason for its default.

One is changed by --threshold NAME=VALUE, or by a YAML file given to --config:

  thresholds:
    port-exhaustion.warning-percent: 70
    close-wait-leak:
      sockets: 50

The file is read first. No file is read unasked.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			t, err := o.load()
			if err != nil {
				return err
			}
			style := styleFor(terminalOf(streams.Out), streams.Getenv, colorNever, false)
			return quietly(render.Text{Style: style}.PrintBounds(streams.Out, story.Thresholds(t)))
		},
	}
	o.add(c.Flags())
	return c
}
