package render

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
		if got := quantity(c.value, c.unit); got != c.want {
			t.Errorf("quantity(%v, %q) = %q, want %q", c.value, c.unit, got, c.want)
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
		if got := elapsed(d); got != want {
			t.Errorf("elapsed(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestSparkline(t *testing.T) {
	values := []float64{0, 1, 50, 100}
	if got, want := (Style{}).sparkline(values), "▁▂▅█"; got != want {
		t.Errorf("sparkline = %q, want %q", got, want)
	}
	if got, want := (Style{ASCII: true}).sparkline(values), "_.=#"; got != want {
		t.Errorf("sparkline in ASCII = %q, want %q", got, want)
	}
	if got, want := (Style{}).sparkline([]float64{0, 0}), "▁▁"; got != want {
		t.Errorf("sparkline of nothing = %q, want %q", got, want)
	}
}
