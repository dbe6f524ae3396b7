package story

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// markOf is the sign of a severity.
func markOf(s diagnose.Severity) Mark {
	switch s {
	case diagnose.Critical:
		return signed('✖', "CRITICAL", Critical)
	case diagnose.Warning:
		return signed('▲', "WARNING", Warning)
	default:
		return signed('●', "INFO", Info)
	}
}

// dot parts what stands side by side; no line begins with it.
const dot = string(NoBreak) + "· "

// heading is a finding's name, its place and its connections.
func heading(f *diagnose.Finding) string {
	parts := []string{string(f.Problem)}
	if f.Netns.Label != "" {
		parts = append(parts, glue(f.Netns.Label))
	}
	if s := subject(f.Subject); s != "" {
		parts = append(parts, s)
	}
	return strings.Join(parts, dot)
}

// subject writes connections in the direction in which they are opened.
func subject(s diagnose.Subject) string {
	switch s.Role {
	case tcp.Connector:
		return glue(s.Local.String() + " → " + s.Remote.String())
	case tcp.Acceptor:
		return s.Local.String()
	case tcp.RoleUnknown:
		return glue(s.Local.String() + " – " + s.Remote.String())
	}
	return ""
}

// verdict is what a finding says below its heading, which names the place and the
// connections.
func verdict(f *diagnose.Finding) string { return cmp.Or(f.Brief, f.Summary) }

// partOf tells one finding, and what is folded under it; nothing is told above it.
func partOf(d *Document, f *diagnose.Finding, whole bool) Part {
	remedies := d.Remedies(*f)
	p := single(d, f, remedies, &told{})
	if !whole {
		return p
	}
	above := told{findings: []diagnose.Finding{*f}, remedies: remedies}
	for i := range f.Related {
		r := &f.Related[i]
		concrete := d.Remedies(*r)
		p.Related = append(p.Related, single(d, r, concrete, &above))
		above.findings = append(above.findings, *r)
		above.remedies = slices.Concat(above.remedies, concrete)
	}
	return p
}

// noteOf tells a finding that is only worth knowing in a line or two.
func noteOf(f *diagnose.Finding) Text {
	text := verdict(f)
	if len(f.Owners) > 0 {
		text = stop(text) + " By " + owners(f.Owners) + inferred(f.Owners) + "."
	}
	return Clean(text)
}

// single tells a finding alone, of which something may stand above.
func single(d *Document, f *diagnose.Finding, remedies []remedy.Remedy, above *told) Part {
	return Part{
		Mark: markOf(f.Severity), Title: Clean(heading(f)), Lead: Clean(verdict(f)), Brief: noteOf(f),
		Sections: []Section{
			who(f, above), why(d, f, above), evidence(f, above), not(f, above), do(remedies, above), folklore(f, above), unsure(f, above), also(f),
		},
	}
}

// rankOf is that of the nth item of a list, of whose first few each has one.
func rankOf(n int, ranks ...Rank) Rank {
	if n < len(ranks) {
		return ranks[n]
	}
	return Whole
}

func who(f *diagnose.Finding, above *told) Section {
	s := Section{Label: Label{Short: "WHO", Long: "Who"}, Again: above.about(f)}
	if len(f.Owners) == 0 && f.Subject.Role != "" {
		s.None = Clean("not known: no process was seen that has sockets of these connections")
	}
	for i, o := range f.Owners {
		s.Items = append(s.Items, Item{
			Rank: rankOf(i, Always, SecondOwner), Kind: &Noun{"owner", "owners"},
			Text: Clean(owner(o) + ": " + because(o, false)), Full: Clean(owner(o) + ": " + because(o, true)), FullFrom: Whole,
		})
	}
	if f.Peer != nil && (f.Subject.Role != "" || len(f.Owners) > 0) {
		s.Items = append(s.Items, Item{Rank: FarEnd, Text: Clean("other end: " + otherEnd(f.Peer))})
	}
	return s
}

// otherEnd names the owners of the other end, and their namespace where it is not
// named after the first of them.
func otherEnd(p *snapshot.Peer) string {
	if len(p.Owners) == 0 {
		return p.Netns
	}
	text := owners(p.Owners)
	if glue("process "+owner(p.Owners[0])) != glue(p.Netns) {
		text += " in " + p.Netns
	}
	return text + inferred(p.Owners)
}

// owner names a process so that it can be found.
func owner(o snapshot.Owner) string {
	var in []string
	if o.PID != 0 {
		in = append(in, glue(fmt.Sprintf("pid %d", o.PID)))
	}
	if o.Container != "" {
		in = append(in, glue("container "+o.Container))
	}
	if o.Pod != "" {
		in = append(in, glue("pod "+o.Pod))
	}
	if len(in) == 0 {
		return o.Process
	}
	return o.Process + " (" + strings.Join(in, ", ") + ")"
}

// because says from what an owner is known; that one was inferred, and why it had
// to be, is unsure, and stands there.
func because(o snapshot.Owner, inFull bool) string {
	switch o.How {
	case snapshot.Seen:
		if o.Traced != nil {
			return seen(o)
		}
		if o.Sockets > 0 {
			return "has " + figure.Count(o.Sockets) + " of these sockets"
		}
		return "has these sockets"
	case snapshot.Listening:
		return "has the listener"
	default:
		if inFull {
			return "inferred from its connections to the same place"
		}
		return "inferred"
	}
}

// seen tells what a program was seen to do while connections were traced.
func seen(o snapshot.Owner) string {
	t := o.Traced
	var parts []string
	if ended := t.Ended(); ended > 0 {
		parts = append(
			parts,
			fmt.Sprintf(
				"closes %s of %s first",
				figure.Percent(100*float64(t.ClosedHere)/float64(ended)),
				figure.Of(int(ended), "connection", "connections"),
			),
		)
		if ms := t.LifeMS.P50; ms != nil {
			parts = append(parts, "which live "+figure.Elapsed(time.Duration(*ms*float64(time.Millisecond)))+" (median)")
		}
	} else if t.Opens > 0 {
		parts = append(parts, "opened "+figure.Of(int(t.Opens), "connection", "connections"))
	}
	if n := t.AbortedHere; n > 0 {
		parts = append(parts, "drops "+figure.Count(n)+" without a FIN")
	}
	if n := t.Failures(); n > 0 {
		parts = append(parts, figure.Of(int(n), "connect fails", "connects fail"))
	}
	if o.Sockets > 0 {
		parts = append(parts, "made "+figure.Count(o.Sockets)+" of these TIME_WAIT sockets")
	}
	return "seen: " + strings.Join(parts, ", ")
}

// owners names the first owner, and counts the others.
func owners(all []snapshot.Owner) string {
	text := owner(all[0])
	if n := len(all) - 1; n > 0 {
		text += " and " + figure.Of(n, "other", "others")
	}
	return text
}

// inferred says so, where the first owner was.
func inferred(all []snapshot.Owner) string {
	if all[0].How == snapshot.Inferred {
		return ", inferred"
	}
	return ""
}

func why(d *Document, f *diagnose.Finding, above *told) Section {
	s := Section{Label: Label{Short: "WHY"}}
	if f.Why != "" {
		s.Items = append(s.Items, inTwoLengths(Item{}, f.Why))
	}
	if g := d.groupOf(f); g != nil && g.Closes != nil {
		s.Items = append(s.Items, Item{Rank: History, Again: above.about(f), Bars: historyOf(g.Closes, snapshot.HistorySeconds)})
	}
	return s
}

// historyOf is the last minute of closes in so many bars.
func historyOf(h *snapshot.CloseHistory, bars int) *Bars {
	b := &Bars{Values: make([]float64, bars), From: Clean("60 s ago"), To: Clean("now"), Unit: Clean("closes/s"), LowerBound: h.LowerBound}
	perBar := snapshot.HistorySeconds / bars
	for i, n := range h.PerSecond {
		b.Values[bars-1-i/perBar] += float64(n) / float64(perBar)
	}
	return b
}

// evidence goes on with why: numbers.
func evidence(f *diagnose.Finding, above *told) Section {
	var s Section
	for i, e := range f.Evidence {
		s.Items = append(s.Items, Item{
			Rank: rankOf(i, Proved, ProvedMore, ProvedFour, ProvedFour), Name: Clean(e.Name),
			Again:    above.any(func(a diagnose.Finding) bool { return contains(a.Evidence, e) }),
			Quantity: &Quantity{Value: e.Value, Limit: e.Limit, Unit: Clean(e.Unit), Source: Clean(e.Source), Check: copied(e.Check)},
		})
	}
	return s
}

func not(f *diagnose.Finding, above *told) Section {
	s := Section{Label: Label{Short: "NOT", Long: "It is not"}, Side: true}
	for i, r := range f.RuledOut {
		s.Items = append(s.Items, Item{
			Rank:  rankOf(i, Acquitted, AcquittedMore, AcquittedThree, AcquittedAll, AcquittedAll, AcquittedAll),
			Again: above.any(func(a diagnose.Finding) bool { return contains(a.RuledOut, r) }),
			Text:  Clean(r.Suspect + ": " + r.Because),
		})
	}
	return s
}

// folklore warns of advice that does not help.
func folklore(f *diagnose.Finding, above *told) Section {
	s := Section{Label: Label{Short: "DON'T", Long: "What will not help"}}
	for _, w := range f.WillNotHelp {
		s.Items = append(s.Items, Item{
			Rank: Whole, Again: above.any(func(a diagnose.Finding) bool { return contains(a.WillNotHelp, w) }), Text: Clean(w.Advice + ": " + w.Why),
		})
	}
	return s
}

func do(remedies []remedy.Remedy, above *told) Section {
	s := Section{Label: Label{Short: "DO", Long: "What helps, in this order"}}
	order := choose(remedies)
	for i, r := range remedies {
		s.Items = append(s.Items, Item{
			Rank: rankOf(slices.Index(order, i), Always, Always, WaysMore), Kind: &Noun{"way", "ways"},
			Again: contains(above.remedies, r), Way: wayOf(i, r),
		})
	}
	return s
}

// choose is in which order remedies find room: the first, the first that a command
// does, and the others in their order.
func choose(remedies []remedy.Remedy) []int {
	var chosen []int
	add := func(i int) {
		if i >= 0 && i < len(remedies) && !slices.Contains(chosen, i) {
			chosen = append(chosen, i)
		}
	}
	add(0)
	add(slices.IndexFunc(remedies, func(r remedy.Remedy) bool { return r.Now != "" }))
	for i := range remedies {
		add(i)
	}
	return chosen
}

func wayOf(i int, r remedy.Remedy) *Way {
	w := &Way{
		Number: i + 1, Title: Clean(r.Title), Change: Clean(cut(r.Change)), ChangeInFull: Clean(r.Change), Now: copied(r.Now),
		PricedAt: rankOf(i, Priced, PricedMore, PricedMore),
	}
	if r.Now != "" {
		w.PricedAt = Always // a command is never told without its risk
	}
	for n, e := range r.Examples {
		w.Examples = append(w.Examples, Example{Rank: rankOf(n, Examples), Program: Clean(e.Program), Line: copied(e.Line)})
	}
	if p := r.Persist; p != nil {
		w.Keep = &Keep{File: Clean(p.File), Line: copied(p.Line), Same: p.Line == r.Now, Note: Clean(p.Note)}
	}
	price := func(rank Rank, name, inline, sentence, text string) {
		if text == "" {
			return
		}
		p := Price{Rank: rank, Name: name, Text: Clean(text)}
		if inline != "" {
			p.Inline, p.Sentence = Clean(inline+strings.TrimSuffix(cut(text), ".")), Clean(stop(sentence+text))
		}
		w.Price = append(w.Price, p)
	}
	price(Frees, "frees", "frees ", "Frees ", r.Frees)
	price(Always, "risk", "risk: ", "Risk: ", r.Risk)
	price(NotWhen, "not when", "not when: ", "Not when ", r.NotWhen)
	price(Finest, "why", "", "", r.Mechanism)
	price(Finest, "kernels", "", "", r.Kernels)
	return w
}

func unsure(f *diagnose.Finding, above *told) Section {
	s := Section{Label: Label{Short: "UNSURE", Long: "Unsure"}}
	new := false
	for i, u := range f.Unsure {
		again := above.any(func(a diagnose.Finding) bool { return slices.Contains(a.Unsure, u) })
		new = new || !again
		s.Items = append(s.Items, inTwoLengths(Item{Rank: rankOf(i, Doubt, DoubtMore), Again: again}, u))
	}
	if new || f.Confidence != diagnose.High {
		s.Items = append(s.Items, Item{Rank: Finest, Text: Clean("confidence is " + string(f.Confidence))})
	}
	return s
}

// inTwoLengths adds to an item a text, and its first sentence for where there is little room.
func inTwoLengths(i Item, text string) Item {
	i.Text, i.Full, i.FullFrom = Clean(cut(text)), Clean(text), InFull
	return i
}

// cut keeps the first sentence.
func cut(text string) string {
	if i := strings.Index(text, ". "); i >= 0 {
		return text[:i+1]
	}
	return text
}

// stop ends a sentence.
func stop(text string) string {
	if text == "" || strings.ContainsAny(text[len(text)-1:], ".!?:") {
		return text
	}
	return text + "."
}
