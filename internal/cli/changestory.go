package cli

import (
	"fmt"
	"slices"
	"time"

	"linger/internal/deed"
	"linger/internal/figure"
	"linger/internal/render"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// settled tells in a line what became of a change that was left by a process that was
// killed.
func settled(id string, state deed.State, why deed.Reason) string {
	switch state {
	case deed.Undone:
		return fmt.Sprintf("change %s is taken back: %s", id, why)
	case deed.Lost:
		return fmt.Sprintf("change %s ended when the host was booted", id)
	default:
		return fmt.Sprintf("change %s is %s", id, state)
	}
}

// waiting tells for how long linger apply waits before it begins.
func waiting(left time.Duration) string {
	return fmt.Sprintf("waiting %d s more, for the guard's base line", int(left.Seconds())+1)
}

func toldAll(reports []deed.Report, measured bool) []render.Account {
	all := make([]render.Account, len(reports))
	for i := range reports {
		all[i] = told(&reports[i], measured)
	}
	return all
}

// told is one change for a person: its state first, then what to do. What was measured is
// told of what is pending.
func told(r *deed.Report, measured bool) render.Account {
	c := render.Account{
		State: string(r.State), Done: r.State == deed.Confirmed, Title: "change " + r.ID, Manifest: r.Manifest,
		Waits: r.State == deed.Pending || r.State == deed.Applying || r.State == deed.Undoing,
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
	if r.Reason != (deed.Reason{}) {
		say("WHY", "%s", r.Reason)
	}
	if r.File != "" {
		say("FILE", "%s keeps it over a boot", r.File)
	} else if r.State == deed.Confirmed {
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
	case r.Watched == nil || r.Guard == deed.GuardOff:
	case measured:
		text := r.Watched.Counted()
		if why := r.Watched.Unknown.String(); why != "" {
			text += " (" + why + ")"
		}
		say("GUARD", "%s", text)
		say("", "%s", r.Watched.NoPort)
	case r.Guard == deed.GuardRollback:
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

func nowOf(v deed.Value) string {
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

// reaped tells one reap in a line.
func reaped(r deed.Reap) string {
	where := "its own namespace"
	if r.Netns != "" {
		where = r.Netns
	}
	outcome := "did not end"
	if r.Result != nil {
		outcome = fmt.Sprintf("%d reaped, %d had gone, %d left", r.Result.Reaped, r.Result.Gone, r.Result.Left)
	}
	return fmt.Sprintf("%s  REAPED  %d sockets in %s by %s: %s", r.ID, r.Sockets, where, r.User, outcome)
}

// hazards are what each state's end may do.
var hazards = map[tcp.State]string{
	tcp.TimeWait: "Without TIME_WAIT a late segment of the old connection may enter or end a new one with the same four numbers " +
		"(RFC 1337), and a peer whose FIN was lost is answered by a reset. Nothing is sent now.",
	tcp.FinWait2:    "The peer has not closed: what it still sends is answered by a reset.",
	tcp.CloseWait:   "The peer gets a reset, and what was not sent yet is lost. The program keeps its descriptors: the leak stays.",
	tcp.Established: "Both programs lose the connection: ECONNABORTED here, ECONNRESET there, and what is on the way is lost.",
}

// toldReap is what is about to be reaped: in which namespace, empty for linger's own, in
// which states, and which sockets; makers are the groups of connections seen there now.
func toldReap(netns string, states []tcp.State, caught []deed.Caught, makers []snapshot.Group) *render.Reap {
	where := "linger's own namespace"
	if netns != "" {
		where = "namespace " + netns
	}
	told := &render.Reap{Netns: where, Groups: []render.ReapedGroup{}, Hazards: []string{}}
	for _, s := range reapable {
		if text := hazards[s]; text != "" && slices.Contains(states, s) {
			told.Hazards = append(told.Hazards, text)
		}
	}
	for _, g := range caught {
		out := render.ReapedGroup{State: g.State.String(), Local: g.Local.String(), Sockets: g.Sockets, Owners: []string{}}
		if g.Local.Port == 0 {
			out.Remote = g.Remote.String()
		}
		for _, owner := range g.Owners {
			out.Owners = append(out.Owners, owner.String())
		}
		if len(out.Owners) == 0 {
			out.Owners = append(out.Owners, makersOf(makers, g)...)
			out.Inferred = len(out.Owners) > 0
		}
		told.Groups = append(told.Groups, out)
	}
	return told
}

func makersOf(groups []snapshot.Group, c deed.Caught) (names []string) {
	for _, g := range groups {
		asAcceptor := g.Role == tcp.Acceptor && g.Local == c.Local
		asConnector := g.Role != tcp.Acceptor && g.Local.Addr == c.Local.Addr && g.Remote == c.Remote
		if !asAcceptor && !asConnector {
			continue
		}
		for _, owner := range g.Owners {
			names = append(names, deed.Owner{Comm: owner.Process, PID: owner.PID}.String())
		}
	}
	return names
}
