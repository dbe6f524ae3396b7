package diagnose

import (
	"fmt"
	"math"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

// What the rules on connection tracking share.

// estimate is a share of a table, in percent, with the ends of its 95 % interval
// (Wilson 1927); of a table that was read to its end all three are the same.
type estimate struct{ share, low, high float64 }

func (e estimate) String() string {
	if e.low == e.high {
		return figure.Percent(e.share)
	}
	return fmt.Sprintf("%s (%.0f to %.0f %%)", figure.Percent(e.share), math.Floor(e.low), math.Ceil(e.high))
}

func estimateOf(s *snapshot.ConntrackSample, part int) estimate {
	n, k := float64(s.Entries), float64(part)
	if n == 0 {
		return estimate{}
	}
	p := k / n
	if s.Complete {
		return estimate{100 * p, 100 * p, 100 * p}
	}
	const z = 1.96 // of a normal distribution, 95 % lie within
	centre := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return estimate{100 * p, 100 * max(0, centre-half), 100 * min(1, centre+half)}
}

// trackedFolklore is advice for the table that is about something else.
var trackedFolklore = []Folklore{
	Folklore(setting.TuningForTracking),
	{"closing on the other side", "the table keeps a closed connection for 120 s, whichever side closes first"},
}
