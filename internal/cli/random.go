package cli

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/lab"
	"linger/internal/lab/score"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/render"
	"linger/internal/story"
)

// mostSeeds bounds linger lab random: an hour or two.
const mostSeeds = 1000

// randomOptions are the flags of linger lab random.
type randomOptions struct {
	seed  uint64
	count int
	scoreOptions
}

func newLabRandom(streams Streams, code *int) *cobra.Command {
	var o randomOptions
	c := &cobra.Command{
		Use: "random", Short: "Build what a seed draws, and score what linger diagnose names", Args: noArguments,
		Long: `Draw hosts, addresses, services and clients, one problem or none, and healthy loads
beside it; build that in throw-away network namespaces, let linger diagnose look at
them, and compare what it names with what was built: the problem first, in its
namespace, of its connections and its process; beside it only what follows from it;
nothing above information that is healthy. The same seed builds the same again.

` + ExitCodes("lab random"),
		Example: `  linger lab random                 one build, of a seed that is told
  linger lab random --seed 7        the same one again
  linger lab random --seed 1 --count 50 -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("seed") {
				o.seed = uint64(rand.Uint32())
			}
			var err error
			*code, err = o.run(c.Context(), streams)
			return err
		},
	}
	c.Flags().Uint64Var(&o.seed, "seed", 0, "build what this `SEED` draws (default: one of chance)")
	c.Flags().IntVar(&o.count, "count", 1, "build `N` seeds, this one and those that follow")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputJSON, outputMarkdown)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	return c
}

func (o *randomOptions) run(ctx context.Context, streams Streams) (int, error) {
	if o.count < 1 || o.count > mostSeeds {
		return 0, usagef("0 of them would say nothing", "--count %d: want 1 to %d", o.count, mostSeeds)
	}
	if !stage.Privileged() {
		return stage.AsRootOfUserNamespace(streams.Out, streams.Err)
	}
	worlds := make([]score.World, o.count)
	for i := range worlds {
		worlds[i] = score.Draw(o.seed + uint64(i))
	}
	if o.count == 1 && o.output == outputText {
		text := render.Text{Style: styleFor(terminalOf(streams.Out), streams.Getenv, o.color, false)}
		if err := quietly(text.Paragraph(streams.Out, story.Drawn(o.seed, worlds[0].String()))); err != nil {
			return 0, err
		}
	}
	return o.scoreOptions.run(ctx, streams, func(ctx context.Context, tell func(lab.Progress)) []proof.Score {
		return score.Random(ctx, worlds, tell)
	})
}

// scoreOptions say how scores are written.
type scoreOptions struct {
	output string
	color  string
}

// run scores what is built, and writes it.
func (o *scoreOptions) run(
	ctx context.Context,
	streams Streams,
	score func(context.Context, func(lab.Progress)) []proof.Score,
) (int, error) {
	if !stage.Privileged() {
		return stage.AsRootOfUserNamespace(streams.Out, streams.Err)
	}
	if err := stage.Sweep(); err != nil {
		return 0, err
	}
	started := time.Now()
	tell, stop := labProgress(streams, "builds")
	scores := score(ctx, tell)
	stop()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	result := &proof.Scores{Measured: measured(render.ScoreSchema, started), Scores: scores}
	if err := quietly(o.print(streams, result)); err != nil {
		return 0, err
	}
	return codeOfScores(scores), nil
}

func (o *scoreOptions) print(streams Streams, s *proof.Scores) error {
	switch o.output {
	case outputJSON:
		return render.JSON{}.Scores(streams.Out, s)
	case outputMarkdown:
		return render.Markdown{}.PrintExam(streams.Out, story.Score(s))
	}
	return render.Text{Style: styleFor(terminalOf(streams.Out), streams.Getenv, o.color, false)}.PrintExam(streams.Out, story.Score(s))
}

// codeOfScores is 1 where a name differs, else 3 where something could not be built.
func codeOfScores(scores []proof.Score) int {
	code := exitOK
	for _, s := range scores {
		switch {
		case s.Miss != "":
			return exitWarning
		case s.Cannot != "":
			code = exitUnread
		}
	}
	return code
}
