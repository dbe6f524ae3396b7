package render

import "testing"

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
