package diagnose

import (
	"fmt"
	"math"
	"strconv"

	"linger/internal/tcp"
)

// Count writes a whole number with commas between the thousands.
func Count[N int | int64 | uint64 | float64](n N) string {
	digits := strconv.FormatFloat(math.Round(float64(n)), 'f', 0, 64)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// countOf writes how many there are of something that takes an s: 1 namespace.
func countOf(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return Count(n) + " " + what
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

// share is how many percent of a whole a part is; of nothing it is nothing.
func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
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

// way writes the two ends of a connector's connections.
func way(local, remote tcp.Endpoint) string { return local.String() + " → " + remote.String() }

// limit is a number that has one.
func limit(n float64) *float64 { return &n }
