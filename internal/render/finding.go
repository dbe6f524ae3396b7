package render

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// detail is how much of a finding is told. Numbers count items.
type detail struct {
	owners    int
	peer      bool // the owners of the other end
	history   bool
	evidence  int
	ruledOut  int
	remedies  int
	frees     bool // what a remedy frees; its risk is always told with a command
	notWhen   bool // when to leave a remedy
	prices    int  // remedies without a command that are told with all this
	examples  int  // of each remedy
	unsure    int
	named     bool // the names of the related findings
	related   int
	notes     bool            // what else to heed where a setting is kept
	sentences bool            // all of a text, not its first sentence
	air       bool            // an empty line after the verdict
	checks    bool            // what -v adds: checks by hand, folklore, mechanisms
	above     []remedy.Remedy // told above, and only named again
}

const all = math.MaxInt

var (
	// least is told of each problem, whatever the room: the verdict, the owner, the
	// reason, the real cure and the command that helps now.
	least = detail{owners: 1, remedies: 2, unsure: 1}
	// compact is for one problem of several, complete for -v.
	compact  = detail{owners: 1, remedies: 2, frees: true, named: true, notes: true}
	complete = detail{
		owners: all, peer: true, history: true, frees: true, notWhen: true, evidence: all, ruledOut: all, remedies: all, prices: all, examples: all,
		unsure: all, related: all, notes: true, sentences: true, air: true, checks: true,
	}
)

// additions are what one problem is told with as well where there is room, the
// most useful first.
var additions = []func(*detail){
	func(d *detail) { d.notes = true },
	func(d *detail) { d.ruledOut = 1 },
	func(d *detail) { d.frees = true },
	func(d *detail) { d.peer = true },
	func(d *detail) { d.history = true },
	func(d *detail) { d.notWhen = true },
	func(d *detail) { d.named = true },
	func(d *detail) { d.evidence = 1 },
	func(d *detail) { d.ruledOut = 2 },
	func(d *detail) { d.prices = 1 },
	func(d *detail) { d.air = true },
	func(d *detail) { d.related = 1 },
	func(d *detail) { d.ruledOut = 3 },
	func(d *detail) { d.owners = 2 },
	func(d *detail) { d.sentences = true },
	func(d *detail) { d.evidence = 2 },
	func(d *detail) { d.examples = 1 },
	func(d *detail) { d.unsure = 2 },
	func(d *detail) { d.remedies = 3 },
	func(d *detail) { d.evidence = 4 },
	func(d *detail) { d.related = 3 },
	func(d *detail) { d.ruledOut = 6 },
	func(d *detail) { d.prices = 3 },
}

// dot parts what stands side by side; no line begins with it.
const dot = string(noBreak) + "· "

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

// summary is the verdict without the connections and the place that the heading
// names.
func summary(f *diagnose.Finding) string {
	text := strings.TrimPrefix(f.Summary, strings.ReplaceAll(subject(f.Subject), string(noBreak), " ")+": ")
	if short, found := strings.CutSuffix(text, " in "+f.Netns.Label); found && f.Netns.Label != "" {
		return strings.TrimSuffix(short, ",")
	}
	return text
}

// glue keeps words on one line.
func glue(text string) string { return strings.ReplaceAll(text, " ", string(noBreak)) }

// finding tells one finding, and what is folded under it.
func (t Text) finding(d *Document, f *diagnose.Finding, much detail) []string {
	b := &block{style: t.Style}
	remedies := d.Remedies(*f)
	t.single(b, d, f, remedies, much)
	t.also(b, d, f, remedies, much)
	return b.lines
}

// single tells a finding alone.
func (t Text) single(b *block, d *Document, f *diagnose.Finding, remedies []remedy.Remedy, much detail) {
	b.headline(markOf(f.Severity), heading(f))
	b.full(plain, summary(f))
	if much.air {
		b.blank()
	}
	t.who(b, f, much)
	t.why(b, d, f, much)
	t.not(b, f, much)
	t.do(b, remedies, much)
	t.folklore(b, f, much)
	t.unsure(b, f, much)
}

func (t Text) who(b *block, f *diagnose.Finding, much detail) {
	if much.owners == 0 || f.Subject.Role == "" && len(f.Owners) == 0 {
		return
	}
	b.section("WHO")
	if len(f.Owners) == 0 {
		b.paragraph("", plain, "not known: no process was seen that has sockets of these connections")
	}
	for i, o := range f.Owners {
		if i == much.owners {
			b.paragraph("", faint, more(len(f.Owners)-i, "owner", "owners"))
			break
		}
		b.paragraph("", plain, owner(o)+": "+because(o, much.checks))
	}
	if f.Peer != nil && much.peer {
		b.paragraph("", plain, "other end: "+otherEnd(f.Peer))
	}
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
		parts = append(parts, fmt.Sprintf("closes %s of %s first", figure.Percent(100*float64(t.ClosedHere)/float64(ended)), figure.Of(int(ended), "connection", "connections")))
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

func (t Text) why(b *block, d *Document, f *diagnose.Finding, much detail) {
	b.section("WHY")
	if f.Why != "" {
		b.paragraph("", plain, cut(f.Why, much.sentences))
	}
	if g := d.groupOf(f); g != nil && g.Closes != nil && much.history {
		if line := t.history(g.Closes); line != "" {
			b.verbatim("", plain, line)
		}
	}
	longest := 0
	for i, e := range f.Evidence {
		if i < much.evidence {
			longest = max(longest, utf8.RuneCountInString(e.Name))
		}
	}
	for i, e := range f.Evidence {
		if i == much.evidence {
			break
		}
		b.paragraph(pad(clean(e.Name, t.Style.ASCII), longest)+"  ", plain, measured(e))
		if much.checks {
			if e.Source != "" {
				b.paragraph("  ", faint, "from "+e.Source)
			}
			if e.Check != "" {
				b.verbatim("  ", command, e.Check)
			}
		}
	}
	b.label = ""
}

// measured writes a number, its limit and the share of it that is used.
func measured(e diagnose.Evidence) string {
	if e.Limit == nil {
		return figure.Quantity(e.Value, e.Unit)
	}
	if e.Unit == "bytes" || e.Unit == "percent" || e.Unit == "%" || *e.Limit <= 0 {
		return figure.Quantity(e.Value, e.Unit) + " of " + figure.Quantity(*e.Limit, e.Unit)
	}
	return fmt.Sprintf("%s of %s (%s)", figure.Number(e.Value), figure.Quantity(*e.Limit, e.Unit), figure.Percent(100*e.Value / *e.Limit))
}

// history draws the last 60 seconds of closes, the latest at the right: a bar a
// second where there is room, else one for two seconds, else nothing.
func (t Text) history(h *snapshot.CloseHistory) string {
	room := t.Style.width() - margin
	perBar := 1
	var caption string
	for ; perBar <= 2; perBar++ {
		bars := make([]float64, snapshot.HistorySeconds/perBar)
		for i, n := range h.PerSecond {
			bars[len(bars)-1-i/perBar] += float64(n) / float64(perBar)
		}
		caption = figure.Number(math.Round(slices.Max(bars)))
		if h.LowerBound {
			caption = "at least " + caption
		}
		caption = "60 s ago " + t.Style.sparkline(bars) + " now, peak " + caption + " closes/s"
		if utf8.RuneCountInString(caption) <= room {
			return caption
		}
	}
	return ""
}

func (t Text) not(b *block, f *diagnose.Finding, much detail) {
	if much.ruledOut == 0 || len(f.RuledOut) == 0 {
		return
	}
	b.section("NOT")
	suspects := make([]string, 0, len(f.RuledOut))
	for i, r := range f.RuledOut {
		if i < much.ruledOut {
			suspects = append(suspects, r.Suspect+": "+r.Because)
		}
	}
	if !much.checks {
		b.paragraph("", plain, strings.Join(suspects, dot))
		return
	}
	for _, suspect := range suspects {
		b.paragraph("", plain, suspect)
	}
}

// folklore warns of advice that does not help.
func (t Text) folklore(b *block, f *diagnose.Finding, much detail) {
	if !much.checks {
		return
	}
	b.section("DON'T")
	for _, w := range f.WillNotHelp {
		b.paragraph("", plain, w.Advice+": "+w.Why)
	}
	b.label = ""
}

func (t Text) do(b *block, remedies []remedy.Remedy, much detail) {
	b.section("DO")
	chosen := choose(remedies, much.remedies)
	for n, i := range chosen {
		if contains(much.above, remedies[i]) {
			b.paragraph(fmt.Sprintf("%d. ", i+1), plain, remedies[i].Title+": as above")
			continue
		}
		// A command is never told without its risk.
		price := n < much.prices || remedies[i].Now != ""
		t.remedy(b, i+1, remedies[i], price, much)
	}
	if n := len(remedies) - len(chosen); n > 0 {
		b.paragraph("", faint, more(n, "way", "ways"))
	}
	b.label = ""
}

// choose is which remedies are told where there is room for n: the first, the
// first that a command does, and the others in their order.
func choose(remedies []remedy.Remedy, n int) []int {
	var chosen []int
	add := func(i int) {
		if i >= 0 && i < len(remedies) && len(chosen) < n && !slices.Contains(chosen, i) {
			chosen = append(chosen, i)
		}
	}
	add(0)
	add(slices.IndexFunc(remedies, func(r remedy.Remedy) bool { return r.Now != "" }))
	for i := range remedies {
		add(i)
	}
	slices.Sort(chosen)
	return chosen
}

// remedy tells one way to cure a problem: now, for ever, and at what price.
func (t Text) remedy(b *block, number int, r remedy.Remedy, price bool, much detail) {
	b.paragraph(fmt.Sprintf("%d. ", number), strong, r.Title)
	change := func() {
		if r.Change != "" {
			b.paragraph("   ", plain, cut(r.Change, much.sentences))
		}
	}
	if r.Now == "" {
		change()
	}
	for i, e := range r.Examples {
		if i == much.examples {
			break
		}
		b.paragraph(field("e.g."), plain, "in "+e.Program+":")
		b.verbatim(field(""), command, e.Line)
	}
	if r.Now != "" {
		b.verbatim(field("now"), command, r.Now)
	}
	if r.Persist != nil {
		t.persist(b, r.Persist, r.Now, much.notes)
	}
	if r.Now != "" {
		change() // it says when the command is not enough
	}
	if price {
		t.price(b, r, much)
	}
}

// price tells what a remedy frees and what it may cost.
func (t Text) price(b *block, r remedy.Remedy, much detail) {
	if !much.checks {
		var parts []string
		add := func(wanted bool, name, text string) {
			if wanted && text != "" {
				parts = append(parts, name+strings.TrimSuffix(cut(text, false), "."))
			}
		}
		add(much.frees, "frees ", r.Frees)
		add(true, "risk: ", r.Risk)
		add(much.notWhen, "not when: ", r.NotWhen)
		if len(parts) > 0 {
			b.paragraph("   ", plain, strings.Join(parts, dot))
		}
		return
	}
	for _, part := range []struct{ name, text string }{
		{"frees", r.Frees}, {"risk", r.Risk}, {"not when", r.NotWhen}, {"why", r.Mechanism}, {"kernels", r.Kernels},
	} {
		if part.text != "" {
			b.paragraph(field(part.name), plain, part.text)
		}
	}
}

// persist tells what keeps a setting: the file and its line, on one line of text
// where they fit; and no line twice, where what keeps it is the command of now.
func (t Text) persist(b *block, p *remedy.Persist, now string, note bool) {
	together := p.File + ": " + p.Line
	switch {
	case p.Line == now:
		b.paragraph(field("for ever"), plain, "the same in "+p.File)
	case strings.Contains(p.Line, "\n") || margin+fieldWidth+utf8.RuneCountInString(together) > t.Style.width():
		b.paragraph(field("for ever"), plain, "in "+p.File)
		b.verbatim(field(""), command, p.Line)
	default:
		b.verbatim(field("for ever"), command, together)
	}
	if note && p.Note != "" {
		b.paragraph(field(""), plain, p.Note)
	}
}

// fieldWidth is the width of a remedy's column of names.
const fieldWidth = 3 + 10

// field leads a line of a remedy; it hangs below the remedy's title.
func field(name string) string { return pad("   "+name, fieldWidth) }

func (t Text) unsure(b *block, f *diagnose.Finding, much detail) {
	if much.unsure == 0 || len(f.Unsure) == 0 && f.Confidence == diagnose.High {
		return
	}
	b.section("UNSURE")
	for i, u := range f.Unsure {
		if i == much.unsure {
			break
		}
		b.paragraph("", plain, cut(u, much.sentences))
	}
	if much.checks {
		b.paragraph("", plain, "confidence is "+string(f.Confidence))
	}
	b.label = ""
}

// more says how much is left for -v.
func more(n int, singular, plural string) string {
	return figure.Of(n, "more "+singular, "more "+plural) + ": `linger -v`"
}

// cut keeps the first sentence, unless the whole is wanted.
func cut(text string, whole bool) string {
	if i := strings.Index(text, ". "); i >= 0 && !whole {
		return text[:i+1]
	}
	return text
}
