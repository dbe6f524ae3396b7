package cli

import (
	"encoding/json"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"linger/internal/deed"
	"linger/internal/plan"
	"linger/internal/render"
	"linger/internal/story"
)

// build is what this program is.
type build struct {
	// Version is that of the module, or of the commit that it was built from.
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Schemas are the forms of JSON that it writes.
	Schemas []string `json:"schemas"`
}

func buildOf() build {
	b := build{
		Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Schemas: []string{
			render.Schema, render.SocketsSchema, render.TraceSchema, plan.Schema,
			deed.Schema, deed.ListSchema, render.LabSchema, render.ReapSchema,
		},
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	return b
}

func newVersion(streams Streams) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Long:  "Say which version of linger this is, what it was built with, and which forms of JSON it writes.",
		Example: `  linger version
  linger version -o json | jq -r .version`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			b := buildOf()
			if output == outputJSON {
				return quietly(json.NewEncoder(streams.Out).Encode(b))
			}
			return quietly(render.Text{}.Lines(streams.Out, story.Version(b.Version, b.Go, b.Platform, b.Schemas)))
		},
	}
	choose(c, &output, "output", "o", "form of the answer", outputText, outputJSON)
	return c
}
