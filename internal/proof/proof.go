// Package proof knows what a measurement is: quantities with their units, repeated,
// of a base line and of what was changed; and the verdict that follows from the
// numbers alone. It measures nothing itself.
package proof

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"linger/internal/diagnose"
)

// Quantity is one thing that is measured in each run.
type Quantity struct {
	// Name is short and stable: part of the JSON output.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Unit is a noun in the plural, or "seconds", "bytes", "µs", "%".
	Unit   string    `json:"unit"`
	Better Direction `json:"better,omitempty"`
	// Margin is the difference below which two runs of the same thing have been seen
	// to lie, or that is of no use to anybody.
	Margin Margin `json:"margin"`
}

// Direction says which change of a quantity is wanted.
type Direction string

// A quantity without a direction is told and never judged.
const (
	Less Direction = "less"
	More Direction = "more"
)

// Margin is the larger of an absolute difference and a share of the base line. Both
// zero is for what comes out to the number.
type Margin struct {
	Absolute float64 `json:"absolute"`
	Share    float64 `json:"share"`
}

// At is the margin at a base line.
func (m Margin) At(base float64) float64 { return max(m.Absolute, m.Share*math.Abs(base)) }

// Kind says why a variant is tried.
type Kind string

// Remedy: linger recommends it, or it is known to help. Folklore: it is recommended
// on the web. Observation: to see what it does.
const (
	Remedy      Kind = "remedy"
	Folklore    Kind = "folklore"
	Observation Kind = "observation"
)

// Arm is one way to run an experiment: the base line, or a variant of it.
type Arm struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// How is the setting, command or line of a program that makes the difference.
	How  string `json:"how,omitempty"`
	Kind Kind   `json:"kind,omitempty"`
	// Expect is the verdict that the mechanism lets expect; the base line has none.
	Expect Verdict `json:"expected,omitempty"`
	// Within are numbers that the mechanism lets expect.
	Within []Bound `json:"within,omitempty"`
	// Names are what a diagnosis has to name, of whatever severity; what else it names is
	// information at most. Empty and not nil: it has to name nothing.
	Names []Name `json:"names,omitempty"`
	// Note says what the numbers alone do not: the mechanism.
	Note string `json:"note,omitempty"`
	// Knob is what the arm sets: a sysctl without its directories, an option of a socket,
	// a command; empty for what is no setting. OverIPv6: it is another arm again, over IPv6.
	Knob     string `json:"-"`
	OverIPv6 bool   `json:"-"`
}

// Bound holds a quantity's every value between two numbers, both included.
type Bound struct {
	Quantity string  `json:"quantity"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// Exactly is a bound of one value.
func Exactly(quantity string, value float64) Bound { return Bound{quantity, value, value} }

// Between is a bound of two.
func Between(quantity string, low, high float64) Bound { return Bound{quantity, low, high} }

// Run is what one run of an arm gave.
type Run struct {
	Values map[string]float64 `json:"values"`
	// Series are curves: how something went over time, or over something else.
	Series []Series `json:"series,omitempty"`
	// Ladders are the segments that passed, for who wants to see them.
	Ladders []Ladder `json:"ladders,omitempty"`
	// Named are the problems that a diagnosis of the namespaces named, the first first.
	Named []Name `json:"named,omitempty"`
}

// Name is a problem that a diagnosis names at one of the hosts of an experiment.
type Name struct {
	Problem diagnose.Slug
	At      string
	// Severity is empty where any will do.
	Severity diagnose.Severity
}

// String is the name in words: connection-churn at the backend (info).
func (n Name) String() string {
	text := string(n.Problem) + " at the " + n.At
	if n.Severity != "" {
		text += " (" + string(n.Severity) + ")"
	}
	return text
}

// MarshalText is String: a name is one word of the JSON output.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Series is a curve of points, in the order of X.
type Series struct {
	Name  string    `json:"name"`
	XUnit string    `json:"x_unit"`
	YUnit string    `json:"y_unit"`
	X     []float64 `json:"x"`
	Y     []float64 `json:"y"`
}

// Ladder is what passed between two hosts.
type Ladder struct {
	Title string `json:"title"`
	// Left and Right are the names of the hosts.
	Left  string `json:"left"`
	Right string `json:"right"`
	Rungs []Rung `json:"rungs"`
}

// Rung is one segment on its way, or something that happened at one end.
type Rung struct {
	// Seconds since the ladder began.
	Seconds float64 `json:"seconds"`
	// FromLeft tells who sent it.
	FromLeft bool `json:"from_left"`
	// Label is the segment in words: SYN, FIN ACK, 1,000 bytes.
	Label string `json:"label"`
	// Lost segments do not arrive.
	Lost bool `json:"lost,omitempty"`
	// Note is what the wire or the receiver did with it.
	Note string `json:"note,omitempty"`
}

// Proof is a finished experiment.
type Proof struct {
	Experiment string `json:"experiment"`
	// Problem is the slug of the problem that it is about, if it is about one.
	Problem  string `json:"problem,omitempty"`
	Title    string `json:"title"`
	Question string `json:"question"`
	// Setup is what stands in every arm, with its numbers.
	Setup string `json:"setup,omitempty"`
	// Quantities in order of weight: the first is the goal.
	Quantities []Quantity `json:"quantities"`
	Base       Result     `json:"base"`
	Variants   []Result   `json:"variants"`
	Seconds    float64    `json:"seconds"`
	// Cannot says why the whole experiment could not run here, empty if it did.
	Cannot string `json:"cannot,omitempty"`
}

// Result is what the runs of one arm gave, judged.
type Result struct {
	Arm
	Runs    []Run    `json:"runs"`
	Spreads []Spread `json:"spreads"`
	// Verdict and Because are empty for a base line.
	Verdict Verdict `json:"verdict,omitempty"`
	Because string  `json:"because,omitempty"`
	// Unexpected are the ways in which the numbers are not what was expected.
	Unexpected []string `json:"unexpected"`
	// Cannot says why it could not run here, empty if it did.
	Cannot string `json:"cannot,omitempty"`
}

// Spread is the median of a quantity over the runs, and the interval around it.
type Spread struct {
	Quantity string `json:"quantity"`
	Interval
}

// Spread of a quantity in this arm.
func (r Result) Spread(quantity string) (Interval, bool) {
	for _, s := range r.Spreads {
		if s.Quantity == quantity {
			return s.Interval, true
		}
	}
	return Interval{}, false
}

// AsExpected tells whether every arm that ran came out as its mechanism lets expect.
func (p Proof) AsExpected() bool {
	for _, r := range p.All() {
		if len(r.Unexpected) > 0 {
			return false
		}
	}
	return true
}

// Complete tells whether everything could run.
func (p Proof) Complete() bool {
	if p.Cannot != "" {
		return false
	}
	for _, r := range p.All() {
		if r.Cannot != "" {
			return false
		}
	}
	return true
}

// All are the base line and the variants.
func (p Proof) All() []Result { return append([]Result{p.Base}, p.Variants...) }

// Judge fills in what follows from the runs: spreads, verdicts and what was not
// expected of them.
func (p *Proof) Judge() {
	p.Base.summarize(p.Quantities)
	p.Base.holdBounds()
	p.Base.holdNames()
	for i := range p.Variants {
		v := &p.Variants[i]
		v.summarize(p.Quantities)
		if v.Cannot != "" || p.Base.Cannot != "" {
			continue
		}
		v.Verdict, v.Because = judge(p.Quantities, p.Base, *v)
		if v.Expect != "" && v.Verdict != v.Expect {
			v.Unexpected = append(v.Unexpected, fmt.Sprintf("expected %q, measured %q: %s", v.Expect, v.Verdict, v.Because))
		}
		v.holdBounds()
		v.holdNames()
	}
}

// summarize makes the spreads of all quantities that every run has.
func (r *Result) summarize(quantities []Quantity) {
	r.Spreads, r.Unexpected = []Spread{}, []string{}
	for _, q := range quantities {
		values := make([]float64, 0, len(r.Runs))
		for _, run := range r.Runs {
			if v, ok := run.Values[q.Name]; ok {
				values = append(values, v)
			}
		}
		if len(values) > 0 {
			r.Spreads = append(r.Spreads, Spread{q.Name, IntervalOf(values)})
		}
	}
}

// holdNames compares what a diagnosis named in each run.
func (r *Result) holdNames() {
	if r.Cannot != "" || r.Names == nil {
		return
	}
	for _, run := range r.Runs {
		if !namedAs(r.Names, run.Named) {
			r.Unexpected = append(r.Unexpected, fmt.Sprintf("linger names %s, expected %s", orNothing(run.Named), orNothing(r.Names)))
		}
	}
}

func namedAs(want, got []Name) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	missing := slices.Clone(want)
	for _, name := range got {
		at := slices.IndexFunc(missing, func(w Name) bool { return w.Problem == name.Problem && w.At == name.At })
		if at >= 0 {
			missing = slices.Delete(missing, at, at+1)
		} else if name.Severity != diagnose.Info {
			return false
		}
	}
	return len(missing) == 0
}

func orNothing(names []Name) string {
	if len(names) == 0 {
		return "nothing"
	}
	return Names(names)
}

// Names writes several names in a row.
func Names(names []Name) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = n.String()
	}
	return strings.Join(words, ", ")
}

func (r *Result) holdBounds() {
	if r.Cannot != "" {
		return
	}
	for _, b := range r.Within {
		s, ok := r.Spread(b.Quantity)
		if !ok {
			r.Unexpected = append(r.Unexpected, "no "+b.Quantity+" was measured")
			continue
		}
		if s.Low < b.Low || s.High > b.High {
			r.Unexpected = append(r.Unexpected, fmt.Sprintf("%s is %s, expected %s", b.Quantity, span(s.Low, s.High), span(b.Low, b.High)))
		}
	}
}
