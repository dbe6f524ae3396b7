package snapshot

import "slices"

// Histogram counts values by the least that a bin holds, in rising order. Bins without a value are
// left out. How wide a bin is its maker knows.
type Histogram []Bin

// Bin counts the values from Least up to the next bin.
type Bin struct {
	Least uint64
	N     uint64
}

// combine adds other times sign, which is 1 or its negative.
func (h Histogram) combine(other Histogram, sign uint64) Histogram {
	out := make(Histogram, 0, max(len(h), len(other)))
	for len(h) > 0 || len(other) > 0 {
		switch {
		case len(other) == 0 || len(h) > 0 && h[0].Least < other[0].Least:
			out, h = append(out, h[0]), h[1:]
		case len(h) == 0 || other[0].Least < h[0].Least:
			out, other = append(out, Bin{other[0].Least, sign * other[0].N}), other[1:]
		default:
			out, h, other = append(out, Bin{h[0].Least, h[0].N + sign*other[0].N}), h[1:], other[1:]
		}
	}
	return slices.DeleteFunc(out, func(b Bin) bool { return b.N == 0 })
}

// Quantile is the least of the bin of the value that a share q of all does not exceed; false
// where there is none.
func (h Histogram) Quantile(q float64) (least uint64, known bool) {
	var all uint64
	for _, b := range h {
		all += b.N
	}
	if all == 0 {
		return 0, false
	}
	rank := uint64(q * float64(all-1))
	for _, b := range h {
		if rank < b.N {
			return b.Least, true
		}
		rank -= b.N
	}
	return h[len(h)-1].Least, true
}

// Spread is a median and what one in a hundred exceeds, in a unit of its place; nil where there
// was no value.
type Spread struct {
	P50 *float64 `json:"p50"`
	P99 *float64 `json:"p99"`
}

// spread is in units of so many of the histogram's.
func (h Histogram) spread(unit float64) Spread {
	at := func(q float64) *float64 {
		least, known := h.Quantile(q)
		if !known {
			return nil
		}
		v := float64(least) / unit
		return &v
	}
	return Spread{at(0.5), at(0.99)}
}
