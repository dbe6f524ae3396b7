package story

import (
	"fmt"
	"strings"
	"time"

	"linger/internal/deed"
	"linger/internal/figure"
)

// Change tells a plan that was applied, with what is asked of who reads it.
func Change(r *deed.Report) *Story {
	return &Story{Title: Clean("change " + r.ID), Parts: Group{Parts: []Part{changed(r, false)}}}
}

// Pending tells the changes that wait to be confirmed, with what they have moved so far.
func Pending(reports []deed.Report) *Story {
	return changesOf("changes that are pending", reports, true, "nothing is pending")
}

// InForce tells the changes whose values are to be in the kernel, and whether they are.
func InForce(reports []deed.Report) *Story {
	return changesOf("changes that are in force", reports, false, "no change of linger's is in force")
}

// Changes tells all changes of the journal.
func Changes(reports []deed.Report) *Story {
	return changesOf("what linger has changed", reports, false, "linger has changed nothing here")
}

// changesOf tells each change, or that there are none.
func changesOf(title string, reports []deed.Report, measured bool, none string) *Story {
	if len(reports) == 0 {
		return &Story{Title: Clean(none), Parts: Group{Rest: Clean(none)}}
	}
	s := &Story{Title: Clean(title)}
	for i := range reports {
		s.Parts.Parts = append(s.Parts.Parts, changed(&reports[i], measured))
	}
	return s
}

// changed is one change: its state first, then what to do. What was measured is told of what
// is pending.
func changed(r *deed.Report, measured bool) Part {
	p := Part{Mark: changeMark(r.State), Title: Clean("change " + r.ID), Attached: copied(r.Manifest)}
	add := func(label Label, items ...Item) {
		p.Sections = append(p.Sections, Section{Label: label, Items: items})
	}
	say := func(label Label, format string, args ...any) {
		add(label, Item{Text: Clean(fmt.Sprintf(format, args...))})
	}
	warn := func(label Label, text string) { add(label, Item{Tone: Warning, Text: Clean(text)}) }
	switch {
	case r.SecondsLeft != nil:
		say(labelUntil, "%s, in %s: then the old values are written back", r.Deadline.Local().Format("2006-01-02 15:04:05 -0700"),
			(time.Duration(*r.SecondsLeft) * time.Second))
		add(labelKeep, Item{Command: oneLine(r.Confirm)})
		add(labelUndo, Item{Command: oneLine(r.Rollback)})
	case r.Ended != nil:
		say(labelWhen, "%s to %s, by %s", r.Began.Local().Format("2006-01-02 15:04:05"),
			r.Ended.Local().Format("2006-01-02 15:04:05 -0700"), r.User)
	}
	if r.Reason != (deed.Reason{}) {
		say(labelReason, "%s", r.Reason)
	}
	if r.File != "" {
		say(labelFile, "%s keeps it over a boot", r.File)
	} else if r.State == deed.Confirmed {
		say(labelNote, "run-time values: they are gone at the next boot")
	}
	for i := range r.Values {
		v := &r.Values[i]
		say(labelSet, "%s in %s: %s → %s%s", v.Key, v.Scope, value(v.Old), value(v.New), nowOf(v))
		if v.Forced != "" {
			warn(labelForced, v.Forced)
		}
		if r.SecondsLeft == nil {
			continue
		}
		for j := range v.Effects {
			label, text := moved(&v.Effects[j], measured)
			say(label, "%s", text)
		}
	}
	switch {
	case r.Watched == nil || r.Guard == deed.GuardOff:
	case measured:
		text := r.Watched.Counted()
		if why := r.Watched.Unknown.String(); why != "" {
			text += " (" + why + ")"
		}
		add(labelGuard, items(Item{}, text, r.Watched.NoPort.String())...)
	case r.Guard == deed.GuardRollback:
		say(labelGuard, "takes it back if more connections fail than before")
	default:
		say(labelGuard, "warns in `linger status` if more connections fail than before")
	}
	if r.Warning != "" {
		warn(labelWarning, r.Warning)
	}
	for _, o := range r.Outcomes {
		text := fmt.Sprintf("%s in %s: %s, %s", o.Key, o.Scope, value(o.Now), o.Result)
		if o.Cause != "" {
			text += ": " + o.Cause
		}
		say(labelNow, "%s", text)
	}
	for _, note := range r.Notes {
		say(labelNote, "%s", note)
	}
	return p
}

// What is said of a change.
var (
	labelUntil   = Label{Short: "UNTIL", Long: "Until"}
	labelKeep    = Label{Short: "KEEP", Long: "To keep it"}
	labelUndo    = Label{Short: "UNDO", Long: "To take it back"}
	labelWhen    = Label{Short: "WHEN", Long: "When"}
	labelReason  = Label{Short: "WHY", Long: "Why it was taken back"}
	labelFile    = Label{Short: "FILE", Long: "File"}
	labelSet     = Label{Short: "SET", Long: "Set"}
	labelForced  = Label{Short: "FORCED", Long: "Forced"}
	labelMoves   = Label{Short: "MOVES", Long: "It is to move"}
	labelMoved   = Label{Short: "MOVED", Long: "It has moved"}
	labelGuard   = Label{Short: "GUARD", Long: "Guard"}
	labelWarning = Label{Short: "WARNING", Long: "Warning"}
	labelNow     = Label{Short: "NOW", Long: "Now"}
	labelNote    = Label{Short: "NOTE", Long: "Note"}
)

// changeMark is the state: as somebody wanted it to be, not decided yet, or over.
func changeMark(s deed.State) Mark {
	word := strings.ToUpper(string(s))
	switch s {
	case deed.Pending, deed.Applying, deed.Undoing:
		return signed('▲', word, Warning)
	case deed.Confirmed:
		return signed('✔', word, Fine)
	default:
		return signed('●', word, Info)
	}
}

// moved tells what a value is to move, or has where it was measured.
func moved(e *deed.EffectSoFar, measured bool) (Label, string) {
	before, after := figure.Count(e.Before), figure.Count(e.After)
	switch {
	case !measured:
		return labelMoves, fmt.Sprintf("%s: %s → %s, %s", e.Name, before, after, e.When)
	case e.Now == nil:
		return labelMoved, fmt.Sprintf("%s: %s → unknown now; the plan says %s", e.Name, before, after)
	default:
		return labelMoved, fmt.Sprintf("%s: %s → %s now; the plan says %s", e.Name, before, figure.Count(*e.Now), after)
	}
}

func nowOf(v *deed.Value) string {
	switch {
	case v.Gone:
		return "; its namespace is gone"
	case v.Now == nil:
		return "; now unknown"
	case v.InForce():
		return ""
	default:
		return ", now " + value(*v.Now)
	}
}

// Settled tells what became of a change that was left by a process that was killed.
func Settled(id string, state deed.State, why deed.Reason) Text {
	switch state {
	case deed.Undone:
		return Clean(fmt.Sprintf("change %s is taken back: %s", id, why))
	case deed.Lost:
		return Clean(fmt.Sprintf("change %s ended when the host was booted", id))
	default:
		return Clean(fmt.Sprintf("change %s is %s", id, state))
	}
}

// Waiting tells for how long linger apply waits before it begins.
func Waiting(left time.Duration) Text {
	return Clean(fmt.Sprintf("waiting %d s more, for the guard's base line", int(left.Seconds())+1))
}
