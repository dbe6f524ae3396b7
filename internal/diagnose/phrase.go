package diagnose

import (
	"fmt"
	"math"
	"strconv"

	"linger/internal/tcp"
)

// count writes a whole number with commas between the thousands.
func count[N int | int64 | uint64 | float64](n N) string {
	digits := strconv.FormatFloat(math.Round(float64(n)), 'f', 0, 64)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// rate writes closes per second: whole from 10 on, else with one decimal.
func rate(perSecond float64) string {
	if perSecond >= 10 || perSecond == math.Trunc(perSecond) {
		return count(perSecond) + "/s"
	}
	return strconv.FormatFloat(perSecond, 'f', 1, 64) + "/s"
}

// percent writes a percentage, rounded down: 99 % is not yet all.
func percent(p float64) string {
	if p > 0 && p < 1 {
		return "under 1 %"
	}
	return count(math.Floor(p)) + " %"
}

// share is how many percent of a whole a part is; of nothing it is nothing.
func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}

// size writes bytes in the decimal unit that fits.
func size(bytes int64) string {
	switch b := float64(bytes); {
	case bytes >= 1e9:
		return fmt.Sprintf("%.1f GB", b/1e9)
	case bytes >= 1e6:
		return fmt.Sprintf("%.1f MB", b/1e6)
	case bytes >= 1e3:
		return fmt.Sprintf("%.0f kB", b/1e3)
	default:
		return fmt.Sprintf("%d B", bytes)
	}
}

// way writes the two ends of a connector's connections.
func way(local, remote tcp.Endpoint) string { return local.String() + " → " + remote.String() }

// limit is a number that has one.
func limit(n float64) *float64 { return &n }
