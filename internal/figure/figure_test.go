package figure

import (
	"math"
	"testing"
	"time"
)

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0, "ports", "0 ports"},
		{28232, "ports", "28,232 ports"},
		{1234567, "", "1,234,567"},
		{-1500, "", "-1,500"},
		{470.53, "closes/s", "471 closes/s"},
		{4.25, "closes/s", "4.2 closes/s"},
		{0.256, "closes/s", "0.26 closes/s"},
		{99.4, "percent", "99 %"},
		{12.5, "seconds", "13 s"},
		{512, "bytes", "512 B"},
		{7_217_920, "bytes", "6.9 MiB"},
		{math.NaN(), "ports", "unknown ports"},
	} {
		if got := Quantity(c.value, c.unit); got != c.want {
			t.Errorf("Quantity(%v, %q) = %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestElapsed(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "0 ms",
		64 * time.Microsecond:   "64 µs",
		840 * time.Millisecond:  "840 ms",
		1449 * time.Millisecond: "1.4 s",
	} {
		if got := Elapsed(d); got != want {
			t.Errorf("Elapsed(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestCounts(t *testing.T) {
	for got, want := range map[string]string{
		Count(0):         "0",
		Count(999):       "999",
		Count(28231):     "28,231",
		Count(1234567):   "1,234,567",
		Count(-1234):     "-1,234",
		Rate(0.25):       "0.2",
		Rate(470.4):      "470",
		Percent(99.9):    "99 %",
		Percent(0.2):     "under 1 %",
		Percent(0):       "0 %",
		Size(512):        "512 B",
		Size(25_600_000): "24.4 MiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
