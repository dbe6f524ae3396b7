package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/change"
	"linger/internal/collect"
	"linger/internal/figure"
	"linger/internal/plan"
	"linger/internal/render"
	"linger/internal/snapshot"
	"linger/internal/story"
)

// list is several changes as JSON.
type list struct {
	Schema  string          `json:"schema"`
	Changes []change.Report `json:"changes"`
	// Reaps are told by linger history alone.
	Reaps []change.ReapEntry `json:"reaps,omitempty"`
}

// tellAll writes several changes.
func (o *changeOptions) tellAll(streams Streams, reports []change.Report, measured bool, none string) error {
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, list{Schema: change.ListSchema, Changes: reports}))
	}
	return quietly(render.Changes(streams.Out, o.style(streams), toldAll(reports, measured), none))
}

func newStatus(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell what is pending, and what it has moved so far",
		Long: `Tell the changes that wait to be confirmed: the time left, each value, and the
numbers that the plan promised to move: before, now, and as promised. On a
terminal it is drawn anew until nothing is pending, or Ctrl-C.

The exit code is 0, 1 if it failed, 64 for a wrong command line.`,
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
	const none = "nothing is pending"
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
			err := o.tellAll(streams, reports, true, none)
			if stuck != nil {
				err = &failedError{needsRoot(errors.Join(stuck, err))}
			}
			return err
		}
		var text bytes.Buffer
		if err := render.Changes(&text, o.style(streams), toldAll(reports, true), none); err != nil {
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
func measure(ctx context.Context, r *change.Report) {
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
		ns := namespaceOf(s, v.Scope)
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

func namespaceOf(s *snapshot.Snapshot, scope plan.Scope) *snapshot.Namespace {
	for i := range s.Namespaces {
		if ns := &s.Namespaces[i]; ns.Cookie == scope.Cookie && ns.Inode == scope.Inode {
			return ns
		}
	}
	return nil
}

func newHistory(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "history",
		Short: "Tell all that linger has changed on this host",
		Long: `Tell each change of the journal, the oldest first: when, by whom, which values,
and what became of it. It reads only.

The exit code is 0, 1 if the journal cannot be read, 64 for a wrong command line.`,
		Example: `  linger history
  linger history -o json | jq -r '.changes[] | [.id, .state] | @tsv'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			reports, err := change.Reports(o.stateDir, nil)
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			reaps, err := change.Reaps(o.stateDir)
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
func (o *changeOptions) tellHistory(streams Streams, reports []change.Report, reaps []change.ReapEntry) error {
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, list{change.ListSchema, reports, reaps}))
	}
	var text bytes.Buffer
	if len(reports) > 0 || len(reaps) == 0 {
		if err := render.Changes(&text, o.style(streams), toldAll(reports, false), "linger has changed nothing here"); err != nil {
			return quietly(err)
		}
	}
	for _, r := range reaps {
		place := "its own namespace"
		if r.Netns != "" {
			place = r.Netns
		}
		outcome := "did not end"
		if r.Result != nil {
			outcome = fmt.Sprintf("%d reaped, %d had gone, %d left", r.Result.Reaped, r.Result.Gone, r.Result.Left)
		}
		fmt.Fprintf(&text, "%s  REAPED  %d sockets in %s by %s: %s\n",
			r.ID, r.Sockets, story.Clean(place), story.Clean(r.User), outcome)
	}
	_, err := streams.Out.Write(text.Bytes())
	return quietly(err)
}

func newDiff(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "diff",
		Short: "Tell which values of linger's are in force, and which are not",
		Long: `Compare the changes that are pending or confirmed with what the kernel says now:
a value that others have changed since shows. It reads only.

The exit code is 0, 1 if the journal cannot be read, 64 for a wrong command line.`,
		Example: `  linger diff
  linger diff -o json | jq '.changes[].values[] | select(.now != .new)'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			reports, err := change.Reports(o.stateDir, func(e *change.Entry) bool { return e.State != change.Undone && e.State != change.Lost })
			if err != nil {
				return &failedError{needsRoot(err)}
			}
			return o.tellAll(streams, reports, false, "no change of linger's is in force")
		},
	}
	o.add(c)
	return c
}

func toldAll(reports []change.Report, measured bool) []render.Account {
	all := make([]render.Account, len(reports))
	for i := range reports {
		all[i] = told(&reports[i], measured)
	}
	return all
}

// told is one change for a person: its state first, then what to do. What was measured is
// told of what is pending.
func told(r *change.Report, measured bool) render.Account {
	c := render.Account{
		State: string(r.State), Done: r.State == change.StateConfirmed, Title: "change " + r.ID, Manifest: r.Manifest,
		Waits: r.State == change.StatePending || r.State == change.StateApplying || r.State == change.StateUndoing,
	}
	say := func(label, format string, args ...any) *render.AccountLine {
		c.Lines = append(c.Lines, render.AccountLine{Label: label, Text: fmt.Sprintf(format, args...)})
		return &c.Lines[len(c.Lines)-1]
	}
	switch {
	case r.SecondsLeft != nil:
		say("UNTIL", "%s, in %s: then the old values are written back", r.Deadline.Local().Format("2006-01-02 15:04:05 -0700"),
			(time.Duration(*r.SecondsLeft) * time.Second))
		say("KEEP", "%s", r.Confirm).Command = true
		say("UNDO", "%s", r.Rollback).Command = true
	case r.Ended != nil:
		say("WHEN", "%s to %s, by %s", r.Began.Local().Format("2006-01-02 15:04:05"), r.Ended.Local().Format("2006-01-02 15:04:05 -0700"), r.User)
	}
	if r.Reason != "" {
		say("WHY", "%s", r.Reason)
	}
	if r.File != "" {
		say("FILE", "%s keeps it over a boot", r.File)
	} else if r.State == change.StateConfirmed {
		say("NOTE", "run-time values: they are gone at the next boot")
	}
	for _, v := range r.Values {
		say("SET", "%s in %s: %s → %s%s", v.Key, v.Scope, orNone(v.Old), orNone(v.New), nowOf(v))
		if v.Forced != "" {
			say("FORCED", "%s", v.Forced).Warns = true
		}
		for _, e := range v.Effects {
			before, after := figure.Count(e.Before), figure.Count(e.After)
			switch {
			case r.SecondsLeft == nil:
			case !measured:
				say("MOVES", "%s: %s → %s, %s", e.Name, before, after, e.When)
			case e.Now == nil:
				say("MOVED", "%s: %s → unknown now; the plan says %s", e.Name, before, after)
			default:
				say("MOVED", "%s: %s → %s now; the plan says %s", e.Name, before, figure.Count(*e.Now), after)
			}
		}
	}
	switch {
	case r.Watched == nil || r.Guard == change.GuardOff:
	case measured:
		text := r.Watched.Counted()
		if r.Watched.Unknown != "" {
			text += " (" + r.Watched.Unknown + ")"
		}
		say("GUARD", "%s", text)
		say("", "%s", r.Watched.NoPort)
	case r.Guard == change.GuardRollback:
		say("GUARD", "takes it back if more connections fail than before")
	default:
		say("GUARD", "warns in `linger status` if more connections fail than before")
	}
	if r.Warning != "" {
		say("WARNING", "%s", r.Warning).Warns = true
	}
	for _, o := range r.Outcomes {
		text := fmt.Sprintf("%s in %s: %s, %s", o.Key, o.Scope, orNone(o.Now), o.Result)
		if o.Cause != "" {
			text += ": " + o.Cause
		}
		say("NOW", "%s", text)
	}
	for _, note := range r.Notes {
		say("NOTE", "%s", note)
	}
	return c
}

func nowOf(v change.Value) string {
	switch {
	case v.Gone:
		return "; its namespace is gone"
	case v.Now == nil:
		return "; now unknown"
	case v.InForce():
		return ""
	default:
		return ", now " + orNone(*v.Now)
	}
}

func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}
