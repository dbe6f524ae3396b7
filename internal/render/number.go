package render

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// whole writes a whole number with commas: 28,232.
func whole(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
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

// number writes a number as exactly as a reader needs it: whole from ten up or
// where it is whole, with one decimal below, and two below one.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "unknown"
	case v == math.Trunc(v) && abs < 1<<53, abs >= 10:
		return whole(int64(math.Round(v)))
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
		return size(v)
	case "percent", "%":
		return number(v) + " %"
	case "seconds":
		return number(v) + " s"
	default:
		return number(v) + " " + unit
	}
}

// size writes a number of bytes in powers of 1,024.
func size(v float64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i < len(units)-1 && math.Abs(v) >= 1024 {
		v, i = v/1024, i+1
	}
	return number(v) + " " + units[i]
}

// elapsed writes how long something took: 840 ms, 1.4 s.
func elapsed(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}
