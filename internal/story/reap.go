package story

import (
	"fmt"
	"strings"

	"linger/internal/deed"
	"linger/internal/figure"
)

// groupsTold is how many groups of sockets are told one by one where not all is told.
const groupsTold = 8

// Reap tells what is about to be reaped, and the hazard of it.
func Reap(r *deed.Reaping) *Story {
	if r.Sockets == 0 {
		none := Clean("no socket matches in " + r.Where())
		return &Story{Title: none, Verdict: Headline{markOK, none}}
	}
	what := figure.Of(r.Sockets, "socket", "sockets")
	if r.Sockets < r.Matched {
		what += " of " + figure.Count(r.Matched) + " that match"
	}
	return &Story{Title: Clean("sockets to reap"), Parts: Group{Parts: []Part{{
		Mark: signed('●', "REAP", Info), Title: Clean(what + " in " + r.Where()),
		Sections: []Section{
			{Label: Label{Short: "WHAT", Long: "What goes"}, Items: caught(r.Groups)},
			{Label: Label{Short: "HAZARD", Long: "The hazard"}, Items: items(Item{}, r.Hazards()...)},
		},
	}}}}
}

// caught tells the first groups, and the others as well or how many they are.
func caught(groups []deed.Caught) []Item {
	var told []Item
	rest := 0
	for i := range groups {
		it := Item{Text: Clean(groupLine(&groups[i]))}
		if i >= groupsTold {
			it.Rank = Whole
			rest += groups[i].Sockets
		}
		told = append(told, it)
	}
	if more := len(groups) - groupsTold; more > 0 {
		text := "and " + figure.Of(more, "group", "groups") + " more of " + figure.Of(rest, "socket", "sockets") + ": -v tells each"
		told = append(told, Item{Until: Whole, Tone: Faint, Text: Clean(text)})
	}
	return told
}

func groupLine(c *deed.Caught) string {
	text := figure.Count(c.Sockets) + " " + c.State.String() + "  " + c.Local.String()
	if !c.AtPort() {
		text += " → " + c.Remote.String()
	}
	if len(c.Owners) == 0 {
		return text + ", owner not known"
	}
	owners := make([]string, len(c.Owners))
	for i, o := range c.Owners {
		owners[i] = o.String()
	}
	text += ", of " + strings.Join(owners, ", ")
	if c.Inferred {
		text += " (inferred)"
	}
	return text
}

// Reaped tells what became of the sockets of a reap.
func Reaped(r *deed.ReapResult) *Story {
	text := figure.Of(r.Reaped, "socket", "sockets") + " reaped"
	if r.Gone > 0 {
		text += ", " + figure.Count(r.Gone) + " had gone by themselves"
	}
	m := markOK
	if r.Left > 0 {
		m = signed('?', "PARTLY", Warning)
		text += ", " + figure.Count(r.Left) + " left: " + r.Cause
	}
	id := Item{Tone: Faint, Text: Clean(r.ID + ", in the journal")}
	return &Story{Title: Clean("sockets reaped"), Parts: Group{Parts: []Part{{
		Mark: m, Title: Clean(text), Sections: []Section{{Label: Label{Short: "ID", Long: "Its id"}, Items: []Item{id}}},
	}}}}
}

// Reaps tells each reap of the journal in a line.
func Reaps(reaps []deed.Reap) []Text {
	out := make([]Text, len(reaps))
	for i, r := range reaps {
		where, outcome := "its own namespace", "did not end"
		if r.Netns != "" {
			where = r.Netns
		}
		if r.Result != nil {
			outcome = fmt.Sprintf("%d reaped, %d had gone, %d left", r.Result.Reaped, r.Result.Gone, r.Result.Left)
		}
		out[i] = Clean(fmt.Sprintf("%s  REAPED  %d sockets in %s by %s: %s", r.ID, r.Sockets, where, r.User, outcome))
	}
	return out
}
