package diagnose

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

// named is the value of the threshold of that name.
func named(t Thresholds, name string) float64 {
	for _, row := range ThresholdTable() {
		if row.Name == name {
			return t.Of(row)
		}
	}
	return math.NaN()
}

func TestThresholdTable(t *testing.T) {
	names := map[string]bool{}
	for _, rule := range Rules() {
		for _, x := range rule.Thresholds {
			slug, _, _ := strings.Cut(x.Name, ".")
			if slug != string(rule.Slug) || x.Unit == "" || x.Reason == "" || x.Default <= 0 {
				t.Errorf("%s declares %+v", rule.Slug, x)
			}
			if names[x.Name] {
				t.Errorf("%s stands twice", x.Name)
			}
			names[x.Name] = true
			if got := named(DefaultThresholds(), x.Name); got != x.Default {
				t.Errorf("%s is %v by default, want %v", x.Name, got, x.Default)
			}
		}
	}
	if len(names) != len(ThresholdTable()) {
		t.Errorf("%d are declared, and %d listed", len(names), len(ThresholdTable()))
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
		switch got := named(th, tt.name); {
		case tt.err == "" && (err != nil || got != tt.value):
			t.Errorf("Set(%s, %v) = %v, and is %v", tt.name, tt.value, err, got)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !reflect.DeepEqual(th, DefaultThresholds())):
			t.Errorf("Set(%s, %v) = %v, want %q and no change", tt.name, tt.value, err, tt.err)
		}
	}
}

// Who has a copy of thresholds that were changed keeps it when they are changed again.
func TestThresholdsAreAValue(t *testing.T) {
	const one, other = "close-wait-leak.sockets", "orphan-pileup.sockets"
	a := DefaultThresholds()
	if err := a.Set(one, 7); err != nil {
		t.Fatal(err)
	}
	b := a
	if err := b.Set(other, 8); err != nil {
		t.Fatal(err)
	}
	if named(a, one) != 7 || named(a, other) != 100 || named(b, one) != 7 || named(b, other) != 8 {
		t.Errorf("%v and %v", a, b)
	}
}
