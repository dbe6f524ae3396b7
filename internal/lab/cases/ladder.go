package cases

import (
	"linger/internal/lab/wire"
	"linger/internal/proof"
)

// ladderOf is a ladder of the wire as a part of a proof.
func ladderOf(title string, l wire.Ladder) proof.Ladder {
	drawn := proof.Ladder{Title: title, Left: l.Left, Right: l.Right, Rungs: []proof.Rung{}}
	for _, r := range l.Rungs {
		drawn.Rungs = append(drawn.Rungs, proof.Rung{
			Seconds: (r.At - l.Rungs[0].At).Seconds(), FromLeft: r.From == wire.Left, Label: r.Label, Lost: !r.Arrived,
			Note: r.Note,
		})
	}
	return drawn
}

// oneIf is 1 or 0.
func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// rise is what counters rose by.
func rise(before, after map[string]uint64, name string) int { return int(after[name] - before[name]) }
