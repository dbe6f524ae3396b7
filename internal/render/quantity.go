package render

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"linger/internal/figure"
	"linger/internal/story"
)

// measured writes a number, its limit and the share of it that is used.
func measured(q *story.Quantity) string {
	unit := q.Unit.String()
	if q.Limit == nil {
		return figure.Quantity(q.Value, unit)
	}
	if unit == "bytes" || unit == "percent" || unit == "%" || *q.Limit <= 0 {
		return figure.Quantity(q.Value, unit) + " of " + figure.Quantity(*q.Limit, unit)
	}
	return fmt.Sprintf("%s of %s (%s)", figure.Number(q.Value), figure.Quantity(*q.Limit, unit), figure.Percent(100*q.Value / *q.Limit))
}

// history draws values over time, the latest at the right: a bar for each where there is
// room, else one for two of them, else nothing.
func (t Text) history(h *story.Bars) string {
	room := t.Style.columns() - margin
	for each := 1; each <= 2; each++ {
		bars := make([]float64, len(h.Values)/each)
		for i, v := range h.Values {
			bars[i/each] += v / float64(each)
		}
		peak := figure.Number(math.Round(slices.Max(bars)))
		if h.LowerBound {
			peak = "at least " + peak
		}
		line := t.Style.show(h.From) + " " + t.Style.sparkline(bars) + " " + t.Style.show(h.To) + ", peak " + peak + " " + t.Style.show(h.Unit)
		if utf8.RuneCountInString(line) <= room {
			return line
		}
	}
	return ""
}
