package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"linger/internal/change"
	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/plan"
	"linger/internal/render"
	"linger/internal/snapshot"
)

// list is several changes as JSON.
type list struct {
	Schema  string          `json:"schema"`
	Changes []change.Report `json:"changes"`
	// Reaps are told by linger history alone.
	Reaps []change.ReapEntry `json:"reaps,omitempty"`
}

// tellAll writes several changes.
func (o *changeOptions) tellAll(streams Streams, reports []change.Report, none string) error {
	if o.output == outputJSON {
		return quietly(encodeJSON(streams, list{Schema: change.ListSchema, Changes: reports}))
	}
	var text bytes.Buffer
	tellChanges(&text, reports, none)
	_, err := streams.Out.Write(text.Bytes())
	return quietly(err)
}

func newStatus(streams Streams) *cobra.Command {
	var o changeOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell what is pending, and what it has moved so far",
		Long: `Tell the changes that wait to be confirmed: the time left, each value, and the
numbers that the plan promised to move: before, now, and as promised. On a
terminal it goes on until nothing is pending, or Ctrl-C. What a watcher that was
killed has left is taken back first.

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
	drawn := 0
	for {
		if err := change.Recover(o.stateDir); err != nil {
			return &failedError{err}
		}
		reports, err := change.Reports(o.stateDir, func(e *change.Entry) bool { return !e.Settled() })
		if err != nil {
			return &failedError{err}
		}
		for i := range reports {
			measure(ctx, &reports[i])
		}
		if !live {
			return o.tellAll(streams, reports, "nothing is pending")
		}
		var text bytes.Buffer
		if drawn > 0 {
			fmt.Fprintf(&text, "\x1b[%dA\x1b[J", drawn)
		}
		before := text.Len()
		tellChanges(&text, reports, "nothing is pending")
		drawn = bytes.Count(text.Bytes()[before:], []byte("\n"))
		if _, err := streams.Out.Write(text.Bytes()); err != nil {
			return quietly(err)
		}
		if len(reports) == 0 {
			return nil
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
				return &failedError{err}
			}
			reaps, err := change.Reaps(o.stateDir)
			if err != nil {
				return &failedError{err}
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
		tellChanges(&text, reports, "linger has changed nothing here")
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
			r.ID, r.Sockets, render.Clean(place), render.Clean(r.User), outcome)
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
				return &failedError{err}
			}
			return o.tellAll(streams, reports, "no change of linger's is in force")
		},
	}
	o.add(c)
	return c
}

func tellChanges(w io.Writer, reports []change.Report, none string) {
	if len(reports) == 0 {
		fmt.Fprintln(w, none)
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		_ = tellChange(w, r)
	}
}

// tellChange writes one change for a person: its state first, then what to do.
func tellChange(w io.Writer, r change.Report) error {
	var b strings.Builder
	say := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-8s%s\n", label, render.Clean(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(&b, "%s  change %s\n", strings.ToUpper(string(r.State)), r.ID)
	switch {
	case r.SecondsLeft != nil:
		say("UNTIL", "%s, in %s: then the old values are written back", r.Deadline.Local().Format("2006-01-02 15:04:05 -0700"),
			(time.Duration(*r.SecondsLeft) * time.Second))
		say("KEEP", "%s", r.Confirm)
		say("UNDO", "%s", r.Rollback)
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
			say("FORCED", "%s", v.Forced)
		}
		for _, e := range v.Effects {
			now := "unknown"
			if e.Now != nil {
				now = diagnose.Count(*e.Now)
			}
			say("MOVED", "%s: %s before, %s now, %s promised", e.Name, diagnose.Count(e.Before), now, diagnose.Count(e.After))
		}
	}
	if r.Watched != nil && r.Guard != change.GuardOff {
		text := r.Watched.String()
		if r.Watched.Unknown != "" {
			text += " (" + r.Watched.Unknown + ")"
		}
		say("GUARD", "%s", text)
	}
	if r.Warning != "" {
		say("WARNING", "%s", r.Warning)
	}
	for _, o := range r.Outcomes {
		say(strings.ToUpper(string(o.Result)), " %s in %s: %s", o.Key, o.Scope, orNone(o.Now))
	}
	for _, note := range r.Notes {
		say("NOTE", "%s", note)
	}
	b.WriteString(r.Manifest)
	_, err := io.WriteString(w, b.String())
	return err
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
