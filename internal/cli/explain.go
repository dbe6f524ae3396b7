package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"linger/docs"
	"linger/internal/explain"
	"linger/internal/render"
)

type explainOptions struct {
	claims bool
	output string
	color  string
}

func newExplain(streams Streams) *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain [TOPIC]",
		Short: "Explain a problem, a state of a connection, or a claim",
		Long: `Explain TIME_WAIT and its two reasons, each state in which a connection ends, and
each problem: the cause, how to check it by hand, what helps, what does not, and
when to leave it alone. Without a topic it lists them.`,
		Example: `  linger explain                   the topics
  linger explain time-wait         the state, and the two reasons for it
  linger explain port-exhaustion   a problem
  linger explain --claims          what people say, and what is true of it
  linger explain --claims recycle  the claims with that word`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			topics, _ := explain.Topics(docs.Pages)
			names := make([]string, len(topics))
			for i, t := range topics {
				names[i] = t.Name + "\t" + t.Title
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return o.run(streams, args) },
	}
	c.Flags().BoolVar(&o.claims, "claims", false, "list the claims that circulate, with the verdict; with words, those that hold them")
	choose(c, &o.output, "output", "o", "form of the answer", outputText, outputMarkdown)
	choose(c, &o.color, "color", "", "when to colour text", colorAuto, colorAlways, colorNever)
	return c
}

func (o *explainOptions) run(streams Streams, args []string) error {
	markdown, err := o.page(args)
	if err != nil {
		return err
	}
	if o.output == outputMarkdown {
		_, err = io.WriteString(streams.Out, markdown)
		return quietly(err)
	}
	style := styleFor(terminalOf(streams.Out), streams.Getenv, o.color, false)
	return quietly(render.Page(streams.Out, markdown, style))
}

// page is what is asked for, in Markdown.
func (o *explainOptions) page(args []string) (string, error) {
	if o.claims {
		return claimsPage(strings.Join(args, " "))
	}
	topics, err := explain.Topics(docs.Pages)
	if err != nil {
		return "", err
	}
	if len(args) == 0 {
		return explain.Index(topics), nil
	}
	name := strings.Join(args, " ")
	topic, found := explain.Find(topics, name)
	if !found {
		return "", usagef("`linger explain` lists the topics", "no topic %q", name)
	}
	return topic.Text, nil
}

// claimsPage lists the claims that hold the words.
func claimsPage(words string) (string, error) {
	all, err := explain.Claims(docs.Pages)
	if err != nil {
		return "", err
	}
	some := explain.ClaimsOf(all, words)
	if len(some) == 0 {
		return "", usagef("`linger explain --claims` lists all", "no claim speaks of %q", words)
	}
	return explain.ClaimsPage(some), nil
}
