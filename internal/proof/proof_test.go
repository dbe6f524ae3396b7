package proof_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"linger/internal/diagnose"
	"linger/internal/proof"
)

// The coverage is that of tables of order statistics.
func TestIntervalIsHonestWithFewRuns(t *testing.T) {
	for _, c := range []struct {
		values            []float64
		median, low, high float64
		coverage          float64
	}{
		{[]float64{7}, 7, 7, 7, 0},
		{[]float64{9, 7}, 8, 7, 9, 0.5},
		{[]float64{3, 1, 2}, 2, 1, 3, 0.75},
		{[]float64{5, 1, 4, 2, 3}, 3, 1, 5, 0.9375},
		{[]float64{1, 2, 3, 4, 5, 6}, 3.5, 1, 6, 0.96875},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9}, 5, 2, 8, 0.9609375},
	} {
		got := proof.IntervalOf(c.values)
		if got.Median != c.median || got.Low != c.low || got.High != c.high || math.Abs(got.Coverage-c.coverage) > 1e-9 {
			t.Errorf("%v gives %+v, want %v (%v–%v) at %v", c.values, got, c.median, c.low, c.high, c.coverage)
		}
	}
}

func TestIntervalEnclosesItsMedian(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 40).Draw(t, "values")
		i := proof.IntervalOf(values)
		if i.Low > i.Median || i.High < i.Median || i.Low < slices.Min(values) || i.High > slices.Max(values) {
			t.Fatalf("%v gives %+v", values, i)
		}
		if len(values) >= 6 && i.Coverage < 0.95 {
			t.Fatalf("%d values reach %v", len(values), i.Coverage)
		}
	})
}

var (
	held  = proof.Quantity{Name: "held", Title: "held", Unit: "sockets", Better: proof.Less, Margin: proof.Margin{Share: 0.1}}
	lost  = proof.Quantity{Name: "lost", Title: "lost", Unit: "bytes", Better: proof.Less}
	moved = proof.Quantity{Name: "moved", Title: "moved", Unit: "sockets"}
)

// runs are runs of the three quantities.
func runs(values ...[3]float64) proof.Result {
	var r proof.Result
	for _, v := range values {
		r.Runs = append(r.Runs, proof.Run{Values: map[string]float64{"held": v[0], "lost": v[1], "moved": v[2]}})
	}
	return r
}

func TestVerdicts(t *testing.T) {
	base := runs([3]float64{100, 0, 0}, [3]float64{104, 0, 0}, [3]float64{98, 0, 0})
	for _, c := range []struct {
		name    string
		variant proof.Result
		want    proof.Verdict
	}{
		{"gone", runs([3]float64{0, 0, 0}), proof.Works},
		{"gone, and elsewhere", runs([3]float64{0, 0, 100}), proof.Works},
		{"as before", runs([3]float64{101, 0, 0}, [3]float64{97, 0, 0}), proof.NoEffect},
		{"within its noise", runs([3]float64{95, 0, 0}), proof.NoEffect},
		{"more", runs([3]float64{150, 0, 0}), proof.Harmful},
		{"gone at a price", runs([3]float64{0, 1, 0}), proof.Harmful},
		{"now so, now so", runs([3]float64{20, 0, 0}, [3]float64{100, 0, 0}), proof.NotShown},
		{"a little less", runs([3]float64{90, 0, 0}), proof.NotShown},
		{"nothing", proof.Result{}, proof.NotShown},
	} {
		p := proof.Proof{Quantities: []proof.Quantity{held, lost, moved}, Base: base, Variants: []proof.Result{c.variant}}
		p.Judge()
		if got := p.Variants[0]; got.Verdict != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, got.Verdict, got.Because, c.want)
		}
	}
}

// More is better for a rate: the same numbers say the opposite.
func TestMoreIsBetter(t *testing.T) {
	rate := proof.Quantity{Name: "held", Title: "rate", Unit: "connects/s", Better: proof.More, Margin: proof.Margin{Absolute: 5}}
	for value, want := range map[float64]proof.Verdict{106: proof.Works, 105: proof.NoEffect, 95: proof.NoEffect, 94: proof.Harmful} {
		p := proof.Proof{
			Quantities: []proof.Quantity{rate}, Base: runs([3]float64{100}), Variants: []proof.Result{runs([3]float64{value})},
		}
		p.Judge()
		if got := p.Variants[0].Verdict; got != want {
			t.Errorf("100 → %v is %q, want %q", value, got, want)
		}
	}
}

func TestExpectations(t *testing.T) {
	base := runs([3]float64{100, 0, 0})
	base.Within = []proof.Bound{proof.Exactly("held", 100), proof.Between("lost", 1, 2)}
	as := runs([3]float64{0, 0, 0})
	as.Expect = proof.Works
	other := runs([3]float64{100, 0, 0})
	other.Expect = proof.Works
	absent := proof.Result{Arm: proof.Arm{Expect: proof.Works}, Cannot: "no such key"}
	p := proof.Proof{Quantities: []proof.Quantity{held, lost}, Base: base, Variants: []proof.Result{as, other, absent}}
	p.Judge()
	if got := p.Base.Unexpected; len(got) != 1 || !strings.Contains(got[0], "lost is 0, expected 1–2") {
		t.Errorf("base line: %q", got)
	}
	if len(p.Variants[0].Unexpected) != 0 || len(p.Variants[1].Unexpected) != 1 || len(p.Variants[2].Unexpected) != 0 {
		t.Errorf("variants: %q, %q, %q", p.Variants[0].Unexpected, p.Variants[1].Unexpected, p.Variants[2].Unexpected)
	}
	if p.AsExpected() || p.Complete() {
		t.Error("as expected, or complete")
	}
}

// A verdict never gets easier by a run that lies between the others, and works and
// harmful are mirrors of each other.
func TestVerdictsAreSymmetric(t *testing.T) {
	opposite := map[proof.Verdict]proof.Verdict{
		proof.Works: proof.Harmful, proof.Harmful: proof.Works, proof.NoEffect: proof.NoEffect, proof.NotShown: proof.NotShown,
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Float64Range(0, 1000)
		q := proof.Quantity{Name: "held", Better: proof.Less, Margin: proof.Margin{Absolute: rapid.Float64Range(0, 100).Draw(t, "margin")}}
		draw := func(name string) proof.Result {
			var r proof.Result
			for _, v := range rapid.SliceOfN(value, 1, 5).Draw(t, name) {
				r.Runs = append(r.Runs, proof.Run{Values: map[string]float64{"held": v}})
			}
			return r
		}
		a, b := draw("a"), draw("b")
		there := proof.Proof{Quantities: []proof.Quantity{q}, Base: a, Variants: []proof.Result{b}}
		there.Judge()
		back := proof.Proof{Quantities: []proof.Quantity{q}, Base: b, Variants: []proof.Result{a}}
		back.Judge()
		if there.Variants[0].Verdict != opposite[back.Variants[0].Verdict] {
			t.Fatalf("%v against %v: %s, and back %s", a, b, there.Variants[0].Verdict, back.Variants[0].Verdict)
		}
	})
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 12345678: "12,345,678", -1500: "-1,500", 60.04: "60.0", 1.234: "1.23", 0.05: "0.05", 999.6: "1,000",
	} {
		if got := proof.Number(v); got != want {
			t.Errorf("%v is written %s, want %s", v, got, want)
		}
	}
}

// What a diagnosis has to name, it names in every run, and nothing graver beside it.
func TestNames(t *testing.T) {
	reuse := func(s diagnose.Severity) proof.Name {
		return proof.Name{Problem: diagnose.TWReuse, At: "proxy", Severity: s}
	}
	churn := func(at string, s diagnose.Severity) proof.Name {
		return proof.Name{Problem: diagnose.ConnectionChurn, At: at, Severity: s}
	}
	type names = []proof.Name
	want := names{churn("backend", "")}
	for _, c := range []struct {
		want, got names
		as        bool
	}{
		{nil, names{reuse(diagnose.Critical)}, true}, // nobody asked
		{names{}, nil, true},
		{names{}, names{reuse(diagnose.Info)}, false},
		{want, names{churn("backend", diagnose.Info)}, true},
		{want, names{reuse(diagnose.Info), churn("backend", diagnose.Warning)}, true},
		{want, names{reuse(diagnose.Warning), churn("backend", diagnose.Info)}, false},
		{want, names{churn("proxy", diagnose.Info)}, false},
		{want, nil, false},
	} {
		base := runs([3]float64{1})
		base.Names, base.Runs[0].Named = c.want, c.got
		p := proof.Proof{Quantities: []proof.Quantity{held}, Base: base}
		p.Judge()
		if p.AsExpected() != c.as {
			t.Errorf("%v where %v is expected: %q", c.got, c.want, p.Base.Unexpected)
		}
	}
	told, err := json.Marshal(names{churn("backend", diagnose.Info), churn("backend", "")})
	if want := `["connection-churn at the backend (info)","connection-churn at the backend"]`; err != nil || string(told) != want {
		t.Errorf("in JSON %s, %v, want %s", told, err, want)
	}
}
