package proof

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Verdict is what the numbers say of a variant.
type Verdict string

// Works: the goal got better by more than its margin, and nothing got worse. NoEffect:
// no run differs from the base line by more than the margin. Harmful: the goal, or
// another quantity that has a direction, got worse. NotShown: the runs overlap too
// much to say.
const (
	Works    Verdict = "works"
	NoEffect Verdict = "no effect"
	Harmful  Verdict = "harmful"
	NotShown Verdict = "not shown"
)

// judge compares the intervals of every quantity that has a direction.
func judge(quantities []Quantity, base, variant Result) (Verdict, string) {
	goal, because := NotShown, "the goal was not measured"
	for i, q := range quantities {
		if i > 0 && q.Better == "" {
			continue
		}
		before, measured := base.Spread(q.Name)
		after, both := variant.Spread(q.Name)
		if !measured || !both {
			continue
		}
		verdict := compare(q, before, after)
		told := fmt.Sprintf("%s: %s → %s %s", q.Title, before, after, q.Unit)
		if verdict == Harmful {
			return Harmful, told
		}
		if i == 0 {
			goal, because = verdict, told
		}
	}
	return goal, because
}

// compare is the verdict on one quantity. The margin is the quantity's own noise, so
// that even single runs can be compared; more runs make the intervals wider and never
// the verdict easier.
func compare(q Quantity, before, after Interval) Verdict {
	margin := q.Margin.At(before.Median)
	better := before.Low - after.High // the least by which it fell
	worse := after.Low - before.High
	if q.Better == More {
		better, worse = worse, better
	}
	switch {
	case better > margin:
		return Works
	case worse > margin:
		return Harmful
	case max(after.High-before.Low, before.High-after.Low) <= margin:
		return NoEffect
	default:
		return NotShown
	}
}

// String writes the median, and the interval where there is one: 12 (11–14).
func (i Interval) String() string {
	if i.Low == i.High {
		return Number(i.Median)
	}
	return fmt.Sprintf("%s (%s)", Number(i.Median), span(i.Low, i.High))
}

func span(low, high float64) string {
	if low == high {
		return Number(low)
	}
	return Number(low) + "–" + Number(high)
}

// Number writes a number with three digits that count, and thousands apart.
func Number(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "unknown"
	case abs >= 100 || v == math.Trunc(v):
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case abs >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

func thousands(digits string) string {
	sign := ""
	if rest, negative := strings.CutPrefix(digits, "-"); negative {
		sign, digits = "-", rest
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}
