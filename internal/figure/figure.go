// Package figure writes numbers for people: counts with commas, rates, percentages,
// sizes and times, each as exactly as a reader needs it. It knows nothing of what
// the numbers are of.
package figure

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Count writes a whole number with commas between the thousands.
func Count[N int | int64 | uint64 | float64](n N) string {
	digits := strconv.FormatFloat(math.Round(float64(n)), 'f', 0, 64)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// Items writes how many there are of something, whose plural takes an s: 1 gap,
// 12,400 sockets.
func Items[N int | int64 | uint64](n N, singular string) string {
	return Of(n, singular, singular+"s")
}

// Of writes how many there are of something: 1 connect fails, 2 connects fail.
func Of[N int | int64 | uint64](n N, singular, plural string) string {
	if n == 1 {
		return "1 " + singular
	}
	return Count(n) + " " + plural
}

// Rate writes how many a second: whole from 10 on, else with one decimal.
func Rate(perSecond float64) string {
	if perSecond >= 10 || perSecond == math.Trunc(perSecond) {
		return Count(perSecond)
	}
	return strconv.FormatFloat(perSecond, 'f', 1, 64)
}

// Percent writes a percentage, rounded down: 99 % is not yet all.
func Percent(p float64) string {
	if p > 0 && p < 1 {
		return "under 1 %"
	}
	return Count(math.Floor(p)) + " %"
}

// Size writes bytes in the binary unit that fits.
func Size(bytes int64) string {
	switch b := float64(bytes); {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", b/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", b/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.0f KiB", b/(1<<10))
	default:
		return fmt.Sprintf("%d B", bytes)
	}
}

// Number writes any number: whole from ten up or where it is whole, with one decimal
// below, and two below one.
func Number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "unknown"
	case v == math.Trunc(v) && abs < 1<<53, abs >= 10:
		return Count(v)
	case abs >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// Quantity writes a number with its unit: 28,232 ports, 6.9 MiB, 96 %.
func Quantity(v float64, unit string) string {
	switch unit {
	case "":
		return Number(v)
	case "bytes":
		return Size(int64(v))
	case "percent", "%":
		return Number(v) + " %"
	case "seconds":
		return Number(v) + " s"
	default:
		return Number(v) + " " + unit
	}
}

// Elapsed writes how long something took: 64 µs, 840 ms, 1.4 s.
func Elapsed(d time.Duration) string {
	if d > 0 && d < time.Millisecond {
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	}
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}
