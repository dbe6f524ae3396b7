package proof

import (
	"math"
	"slices"
)

// Interval is the median of a few values and two of them that enclose the true
// median, with the probability that they do.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	// Runs is the number of values, and Coverage the probability that the true median
	// lies between Low and High, whatever the distribution is: 0 for one value.
	Runs     int     `json:"runs"`
	Coverage float64 `json:"coverage"`
}

// wanted is the probability at which an interval is narrowed.
const wanted = 0.95

// IntervalOf uses the order of the values alone. The kth smallest and the kth largest
// of n values enclose the median unless fewer than k values fall on one side of it,
// which is the tail of n throws of a coin. With fewer than six values even the
// smallest and the largest do not reach 95 %: the coverage says what they reach.
func IntervalOf(values []float64) Interval {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return Interval{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	k, coverage := 1, coverageOf(n, 1)
	for 2*(k+1) <= n {
		next := coverageOf(n, k+1)
		if next < wanted {
			break
		}
		k, coverage = k+1, next
	}
	return Interval{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Low:    sorted[k-1], High: sorted[n-k],
		Runs: n, Coverage: coverage,
	}
}

// coverageOf is 1 − 2·P(fewer than k of n throws).
func coverageOf(n, k int) float64 {
	tail, term := 0.0, math.Pow(0.5, float64(n)) // term is C(n, i)/2^n
	for i := range k {
		tail += term
		term *= float64(n-i) / float64(i+1)
	}
	return max(0, 1-2*tail)
}
