package diagnose

import (
	"math"
	"strings"
	"testing"
)

func TestThresholdTable(t *testing.T) {
	slugs := map[string]bool{}
	for _, rule := range Rules() {
		slugs[string(rule.Slug)] = true
	}
	fields := map[*float64]string{}
	var th Thresholds
	for _, row := range ThresholdTable() {
		slug, _, found := strings.Cut(row.Name, ".")
		if !found || !slugs[slug] || row.Unit == "" || row.Reason == "" {
			t.Errorf("%+v", row)
		}
		if other, taken := fields[row.field(&th)]; taken {
			t.Errorf("%s and %s are one threshold", row.Name, other)
		}
		fields[row.field(&th)] = row.Name
		if got, ok := DefaultThresholds().Get(row.Name); !ok || got != row.Default {
			t.Errorf("%s is %v by default, want %v", row.Name, got, row.Default)
		}
	}
}

func TestSetThreshold(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value float64
		err   string
	}{
		{"port-exhaustion.warning-percent", 70, ""},
		{"close-wait-leak.sockets", 5000, ""},
		{"port-exhaustion.warning-percent", 101, "above 100 %"},
		{"close-wait-leak.sockets", 0, "not above 0"},
		{"close-wait-leak.sockets", math.NaN(), "not above 0"},
		{"port-exhaustion.percent", 70, "there are port-exhaustion.warning-percent, "},
	} {
		th := DefaultThresholds()
		err := th.Set(tt.name, tt.value)
		switch got, _ := th.Get(tt.name); {
		case tt.err == "" && (err != nil || got != tt.value):
			t.Errorf("Set(%s, %v) = %v, and is %v", tt.name, tt.value, err, got)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || th != DefaultThresholds()):
			t.Errorf("Set(%s, %v) = %v, want %q and no change", tt.name, tt.value, err, tt.err)
		}
	}
}
