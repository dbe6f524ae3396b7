package cli

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"linger/internal/diagnose"
	"linger/internal/render"
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
			width := columnsOf(terminalOf(streams.Out), streams.Getenv)
			return tell(streams.Out, t, render.Style{Width: width, ASCII: !isUTF8(streams.Getenv)})
		},
	}
	o.add(c.Flags())
	return c
}

// tell writes the table: a name and its value, and below it the reason.
func tell(w io.Writer, t diagnose.Thresholds, style render.Style) error {
	for _, row := range diagnose.ThresholdTable() {
		value := t.Of(row)
		line := fmt.Sprintf("%-38s %s %s", row.Name, short(value), row.Unit)
		if value != row.Default {
			line += fmt.Sprintf("  (default %s)", short(row.Default))
		}
		text := line + "\n" + style.Indented(4, row.Reason)
		if _, err := io.WriteString(w, text); err != nil {
			return quietly(err)
		}
	}
	return nil
}

func short(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
