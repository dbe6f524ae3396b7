package render

import (
	"io"
	"strings"

	"linger/internal/figure"
	"linger/internal/story"
)

// ReapSchema names the form of what linger reap writes (docs/reap.schema.json).
const ReapSchema = "linger.reap/1"

// Reap is what linger reap found, and what became of it.
type Reap struct {
	Schema string `json:"schema"`
	Netns  string `json:"netns"`
	// Matched are the sockets that the selection holds for, Sockets those of them that
	// --max leaves.
	Matched int           `json:"matched"`
	Sockets int           `json:"sockets"`
	Groups  []ReapedGroup `json:"groups"`
	Hazards []string      `json:"hazards"`
	// Outcome is null where nothing was done.
	Outcome *ReapOutcome `json:"outcome"`
}

// ReapedGroup is a number of sockets that share a state, an address here and an
// endpoint there, or a port here.
type ReapedGroup struct {
	State   string   `json:"state"`
	Local   string   `json:"local"`
	Remote  string   `json:"remote"` // empty for many
	Sockets int      `json:"sockets"`
	Owners  []string `json:"owners"`
	// Inferred: the owners are those seen opening such connections, for the kernel has
	// forgotten who made these sockets.
	Inferred bool `json:"inferred"`
}

// ReapOutcome is what became of the sockets.
type ReapOutcome struct {
	ID     string `json:"id"`
	Reaped int    `json:"reaped"`
	Gone   int    `json:"gone"`
	Left   int    `json:"left"`
	Cause  string `json:"cause,omitempty"`
}

// ReapJSON writes it for a program.
func ReapJSON(w io.Writer, r *Reap) error {
	r.Schema = ReapSchema
	e := newEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// reapGroupsTold is how many groups are told one by one without -v.
const reapGroupsTold = 8

// ReapPlanned writes what is about to be reaped, and the hazard of it.
func ReapPlanned(w io.Writer, s Style, r *Reap) error {
	b := &block{style: s}
	say := func(tone story.Tone, text string) { b.paragraph("", tone, s.show(story.Clean(text))) }
	what := figure.Of(r.Sockets, "socket", "sockets")
	if r.Sockets < r.Matched {
		what += " of " + figure.Count(r.Matched) + " that match"
	}
	if r.Sockets == 0 {
		b.headline(story.Mark{Sign: '✔', Word: story.Clean("OK"), Tone: story.Fine}, story.Clean("no socket matches in "+r.Netns))
		return b.print(w)
	}
	b.headline(story.Mark{Sign: '●', Word: story.Clean("REAP"), Tone: story.Info}, story.Clean(what+" in "+r.Netns))
	b.section("WHAT")
	for i, g := range r.Groups {
		if i == reapGroupsTold && !s.Verbose {
			rest := 0
			for _, g := range r.Groups[i:] {
				rest += g.Sockets
			}
			say(story.Faint, "and "+figure.Of(len(r.Groups)-i, "group", "groups")+" more of "+figure.Of(rest, "socket", "sockets")+": -v tells each")
			break
		}
		say(story.Plain, groupLine(g))
	}
	b.section("HAZARD")
	for _, h := range r.Hazards {
		say(story.Plain, h)
	}
	return b.print(w)
}

func groupLine(g ReapedGroup) string {
	text := figure.Count(g.Sockets) + " " + g.State + "  " + g.Local
	if g.Remote != "" {
		text += " → " + g.Remote
	}
	switch {
	case len(g.Owners) == 0:
		return text + ", owner not known"
	case g.Inferred:
		return text + ", of " + strings.Join(g.Owners, ", ") + " (inferred)"
	default:
		return text + ", of " + strings.Join(g.Owners, ", ")
	}
}

// ReapDone writes what became of it.
func ReapDone(w io.Writer, s Style, r *Reap) error {
	b := &block{style: s}
	say := func(tone story.Tone, text string) { b.paragraph("", tone, s.show(story.Clean(text))) }
	o := r.Outcome
	text := figure.Of(o.Reaped, "socket", "sockets") + " reaped"
	if o.Gone > 0 {
		text += ", " + figure.Count(o.Gone) + " had gone by themselves"
	}
	m := story.Mark{Sign: '✔', Word: story.Clean("OK"), Tone: story.Fine}
	if o.Left > 0 {
		m = story.Mark{Sign: '?', Word: story.Clean("PARTLY"), Tone: story.Warning}
		text += ", " + figure.Count(o.Left) + " left: " + o.Cause
	}
	b.headline(m, story.Clean(text))
	b.section("ID")
	say(story.Faint, o.ID+", in the journal")
	return b.print(w)
}
