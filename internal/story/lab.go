package story

import (
	"fmt"
	"time"

	"linger/internal/figure"
	"linger/internal/proof"
)

// Report is what a laboratory measured.
type Report struct {
	Verdict Headline
	// Where says on what it was measured, Kernel and At are of it.
	Where, Kernel Text
	At            time.Time
	Experiments   []Experiment
	// Changes are those of a plan, in place of experiments.
	Changes []Tried
	// Answers gather what was measured over all experiments.
	Answers Answers
}

// Experiment is a question, and what each way to run it measured.
type Experiment struct {
	Name, Title, Question, Setup Text
	// Cannot says why it could not run here.
	Cannot Text
	// Measures are its quantities in order of weight; the first is the goal.
	Measures []Measure
	// Arms are the base line and the variants.
	Arms []Arm
	// Verdicts gather the variants.
	Verdicts []Answer
}

// Measure is a quantity.
type Measure struct {
	Title, Unit Text
	Better      Text // less or more; empty where it is only told
}

// Arm is one way to run an experiment, and what that measured.
type Arm struct {
	ID, Title, Kind, How Text
	Mark                 Mark
	// Variant: it is no base line. Judged: it has a verdict.
	Variant, Judged, Harmful bool
	// Goal is nil where it was not measured.
	Goal *Spread
	// Values are of each measure, empty where it was not measured.
	Values  []Text
	Curves  []Curve
	Ladders []Ladder
	// Says is what linger diagnose named; Because is for the verdict, Note the mechanism.
	Says, Because, Note Text
	Unexpected          []Text
	Cannot              Text
}

// Spread is a median and the interval around it, beside the base line's median, on a
// scale up to Most.
type Spread struct {
	Median, Low, High float64
	Base, Most        float64
	Text              Text
}

// Curve is how something went over something else.
type Curve struct {
	Name, XUnit, YUnit Text
	X, Y               []float64
}

// Ladder is what passed between two hosts.
type Ladder struct {
	Title, Left, Right Text
	Rungs              []Rung
}

// Rung is one segment on its way.
type Rung struct {
	Seconds     float64
	FromLeft    bool
	Lost        bool
	Label, Note Text
}

// Lab tells each experiment with all of its arms.
func Lab(l *proof.Lab) *Report {
	r := newReport(&l.Measured, l.Proofs, l.Quick)
	r.Verdict = labVerdict(l.Proofs)
	for i := range l.Proofs {
		r.Experiments = append(r.Experiments, experimentOf(&l.Proofs[i]))
	}
	r.Answers = answersOf(l.Proofs)
	return r
}

func newReport(m *proof.Measured, proofs []proof.Proof, quick bool) *Report {
	runs := 0
	for _, p := range proofs {
		runs = max(runs, len(p.Base.Runs))
	}
	where := fmt.Sprintf("Linux %s · %s · %s of each arm · %s", m.Kernel, figure.Of(m.CPUs, "CPU", "CPUs"), figure.Of(runs, "run", "runs"),
		figure.Elapsed(time.Duration(m.ElapsedMS)*time.Millisecond))
	if quick {
		where += " · quick"
	}
	return &Report{Where: Clean(where), Kernel: Clean(m.Kernel), At: m.TakenAt}
}

// labVerdict says in one sentence how it came out.
func labVerdict(proofs []proof.Proof) Headline {
	variants, unexpected, cannot := 0, 0, 0
	for _, p := range proofs {
		if p.Cannot != "" {
			cannot++
			continue
		}
		for i, r := range p.All() {
			if i > 0 {
				variants++
			}
			if r.Cannot != "" {
				cannot++
			}
			if len(r.Unexpected) > 0 {
				unexpected++
			}
		}
	}
	text := fmt.Sprintf("%s and %s measured", figure.Of(len(proofs), "experiment", "experiments"), figure.Of(variants, "variant", "variants"))
	m := markOK
	if cannot > 0 {
		m = markIncomplete
	}
	if unexpected == 0 {
		text += ", all as expected"
	} else {
		m = signed('✖', "UNEXPECTED", Critical)
		text += fmt.Sprintf(", %d not as expected", unexpected)
	}
	if cannot > 0 {
		text += fmt.Sprintf(", %d could not run", cannot)
	}
	return Headline{m, Clean(text)}
}

var markIncomplete = signed('?', "INCOMPLETE", Warning)

// verdictMark is the sign and tone of a verdict.
func verdictMark(v proof.Verdict) Mark {
	switch v {
	case proof.Works:
		return signed('✔', string(v), Fine)
	case proof.Harmful:
		return signed('✖', string(v), Critical)
	case proof.NoEffect:
		return signed('○', string(v), Faint)
	case proof.NotShown:
		return signed('?', string(v), Warning)
	}
	return signed('·', "base line", Strong)
}

// markOfResult is that of its verdict, where there can be one.
func markOfResult(r *proof.Result) Mark {
	if r.Cannot != "" || r.Kind != "" && r.Verdict == "" {
		return signed('?', "unknown", Warning)
	}
	return verdictMark(r.Verdict)
}

func experimentOf(p *proof.Proof) Experiment {
	e := Experiment{
		Name: Clean(p.Experiment), Title: Clean(p.Title), Question: Clean(p.Question), Setup: Clean(p.Setup), Cannot: Clean(p.Cannot),
		Verdicts: verdictsOf(p),
	}
	for _, q := range p.Quantities {
		e.Measures = append(e.Measures, Measure{Clean(q.Title), Clean(q.Unit), Clean(string(q.Better))})
	}
	most := 0.0
	for _, r := range p.All() {
		if g, ok := goal(p, &r); ok {
			most = max(most, g.High)
		}
	}
	before, _ := goal(p, &p.Base)
	for _, r := range p.All() {
		a := armOf(p, &r)
		if g, ok := goal(p, &r); ok {
			a.Goal = &Spread{Median: g.Median, Low: g.Low, High: g.High, Base: before.Median, Most: most, Text: Clean(g.String())}
		}
		e.Arms = append(e.Arms, a)
	}
	return e
}

// goal is the spread of what a proof is about, in one of its arms.
func goal(p *proof.Proof, r *proof.Result) (proof.Interval, bool) {
	if len(p.Quantities) == 0 {
		return proof.Interval{}, false
	}
	return r.Spread(p.Quantities[0].Name)
}

func armOf(p *proof.Proof, r *proof.Result) Arm {
	a := Arm{
		ID: Clean(r.ID), Title: Clean(r.Title), Kind: Clean(string(r.Kind)), How: Clean(r.How), Mark: markOfResult(r),
		Variant: r.Kind != "", Judged: r.Verdict != "", Harmful: r.Verdict == proof.Harmful,
		Says: Clean(said(r)), Because: Clean(r.Because), Note: Clean(r.Note), Unexpected: cleanAll(r.Unexpected), Cannot: Clean(r.Cannot),
	}
	for _, q := range p.Quantities {
		value := "" // not measured
		if i, ok := r.Spread(q.Name); ok {
			value = i.String()
		}
		a.Values = append(a.Values, Clean(value))
	}
	if len(r.Runs) == 0 {
		return a
	}
	for _, c := range r.Runs[0].Series {
		a.Curves = append(a.Curves, Curve{Clean(c.Name), Clean(c.XUnit), Clean(c.YUnit), c.X, c.Y})
	}
	for _, l := range r.Runs[0].Ladders {
		ladder := Ladder{Title: Clean(l.Title), Left: Clean(l.Left), Right: Clean(l.Right)}
		for _, rung := range l.Rungs {
			ladder.Rungs = append(ladder.Rungs, Rung{rung.Seconds, rung.FromLeft, rung.Lost, Clean(rung.Label), Clean(rung.Note)})
		}
		a.Ladders = append(a.Ladders, ladder)
	}
	return a
}

// said is what a diagnosis named in the first run, where it was asked.
func said(r *proof.Result) string {
	switch {
	case len(r.Runs) == 0 || r.Names == nil && r.Runs[0].Named == nil:
		return ""
	case len(r.Runs[0].Named) == 0:
		return "nothing is wrong"
	}
	return proof.Names(r.Runs[0].Named)
}
