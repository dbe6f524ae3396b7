package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/change"
	"linger/internal/collect"
	"linger/internal/deed"
	"linger/internal/plan"
	"linger/internal/reap"
	"linger/internal/story"
)

// list is several changes as JSON.
type list struct {
	Schema  string        `json:"schema"`
	Changes []deed.Report `json:"changes"`
	// Reaps are told by linger history alone.
	Reaps []deed.Reap `json:"reaps,omitempty"`
}

// tellAll writes several changes, as a story of them tells.
func (o *changeOptions) tellAll(streams Streams, reports []deed.Report, of func([]deed.Report) *story.Story) error {
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, list{Schema: deed.ListSchema, Changes: reports}))
	}
	return quietly(o.text(streams).Print(streams.Out, of(reports)))
}

func newStatus(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell what is pending, and what it has moved so far",
		Long: `Tell the changes that wait to be confirmed: the time left, each value, and the
numbers that the plan promised to move: before, now, and as promised. On a
terminal it is drawn anew until nothing is pending, or Ctrl-C.

` + ExitCodes("status"),
		Example: `  linger status
  linger status -o json | jq '.changes[].seconds_left'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.status(c.Context(), streams) },
	}
	o.add(c)
	return c
}

func (o *changeOptions) status(ctx context.Context, streams Streams) error {
	live := o.output == outputText && canErase(terminalOf(streams.Out), streams.Getenv)
	for drawn := 0; ; {
		stuck := change.Recover(o.stateDir) // what it is about is pending still, and shown
		reports, err := change.Reports(o.stateDir, func(e *change.Entry) bool { return !e.Settled() })
		if err != nil {
			return &failedError{needsRoot(err)}
		}
		for i := range reports {
			measure(ctx, &reports[i])
		}
		if !live || stuck != nil {
			err := o.tellAll(streams, reports, story.Pending)
			if stuck != nil {
				err = &failedError{needsRoot(errors.Join(stuck, err))}
			}
			return err
		}
		var text bytes.Buffer
		if err := o.text(streams).Print(&text, story.Pending(reports)); err != nil {
			return quietly(err)
		}
		out := terminalOf(streams.Out)
		_, err = io.WriteString(streams.Out, out.over(drawn)+text.String())
		drawn = out.rowsOf(text.String())
		if err != nil || len(reports) == 0 {
			return quietly(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// measure adds the present values of the numbers that a plan promised to move; what
// cannot be told stays unknown.
func measure(ctx context.Context, r *deed.Report) {
	var names []string
	for _, v := range r.Values {
		if v.Scope.Own {
			names = append(names, "/proc/self/ns/net")
		}
		if v.Scope.Path != "" {
			names = append(names, v.Scope.Path)
		}
	}
	if len(names) == 0 {
		return
	}
	s, err := collect.Collect(ctx, collect.Options{Netns: names})
	if err != nil {
		return
	}
	for i := range r.Values {
		v := &r.Values[i]
		ns := s.Namespace(v.Scope.Cookie, v.Scope.Inode)
		if ns == nil {
			continue
		}
		now := (&plan.Change{Key: v.Key}).Now(ns)
		for j := range v.Effects {
			if value, known := now[v.Effects[j].Name]; known {
				v.Effects[j].Now = &value
			}
		}
	}
}

func newHistory(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "history",
		Short: "Tell all that linger has changed on this host",
		Long: `Tell each change of the journal, the oldest first: when, by whom, which values,
and what became of it. It reads only.

` + ExitCodes("history"),
		Example: `  linger history
  linger history -o json | jq -r '.changes[] | [.id, .state] | @tsv'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			reports, err := change.Reports(o.stateDir, nil)
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			reaps, err := reap.All(o.stateDir)
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			return o.tellHistory(streams, reports, reaps)
		},
	}
	o.add(c)
	return c
}

// tellHistory writes all changes, and all reaps after them.
func (o *changeOptions) tellHistory(streams Streams, reports []deed.Report, reaps []deed.Reap) error {
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, list{deed.ListSchema, reports, reaps}))
	}
	text := o.text(streams)
	if len(reports) > 0 || len(reaps) == 0 {
		if err := text.Print(streams.Out, story.Changes(reports)); err != nil {
			return quietly(err)
		}
	}
	return quietly(text.Lines(streams.Out, story.Reaps(reaps)))
}

func newDiff(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "diff",
		Short: "Tell which values of linger's are in force, and which are not",
		Long: `Compare the changes that are pending or confirmed with what the kernel says now:
a value that others have changed since shows. It reads only.

` + ExitCodes("diff"),
		Example: `  linger diff
  linger diff -o json | jq '.changes[].values[] | select(.now != .new)'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			reports, err := change.Reports(o.stateDir, func(e *change.Entry) bool { return e.State.InForce() })
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			return o.tellAll(streams, reports, story.InForce)
		},
	}
	o.add(c)
	return c
}
