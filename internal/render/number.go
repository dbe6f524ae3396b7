package render

import (
	"math"
	"strconv"
	"time"

	"linger/internal/diagnose"
)

// number writes a number as exactly as a reader needs it: whole from ten up or
// where it is whole, with one decimal below, and two below one.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "unknown"
	case v == math.Trunc(v) && abs < 1<<53, abs >= 10:
		return diagnose.Count(v)
	case abs >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// quantity writes a number with its unit: 28,232 ports, 6.9 MiB, 96 %.
func quantity(v float64, unit string) string {
	switch unit {
	case "":
		return number(v)
	case "bytes":
		return diagnose.Size(int64(v))
	case "percent", "%":
		return number(v) + " %"
	case "seconds":
		return number(v) + " s"
	default:
		return number(v) + " " + unit
	}
}

// elapsed writes how long something took: 64 µs, 840 ms, 1.4 s.
func elapsed(d time.Duration) string {
	if d > 0 && d < time.Millisecond {
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	}
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}
