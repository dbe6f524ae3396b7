package story

import (
	"fmt"
	"strconv"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/proof"
)

// Experiments tells what can be measured: proofs without a run.
func Experiments(all []proof.Proof) []Experiment {
	out := make([]Experiment, len(all))
	for i := range all {
		out[i] = experimentOf(&all[i])
	}
	return out
}

// Bound is a threshold, its value, and the reason for it.
type Bound struct{ Name, Value, Reason Text }

// Thresholds tells from which numbers on something is a problem, and why.
func Thresholds(t diagnose.Thresholds) []Bound {
	short := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	var out []Bound
	for _, row := range diagnose.ThresholdTable() {
		value := t.Of(row)
		text := short(value) + " " + row.Unit
		if value != row.Default {
			text += fmt.Sprintf("  (default %s)", short(row.Default))
		}
		out = append(out, Bound{Clean(row.Name), Clean(text), Clean(row.Reason)})
	}
	return out
}

// Version tells which program this is, and which forms of JSON it writes.
func Version(version, language, platform string, schemas []string) []Text {
	return cleanAll([]string{fmt.Sprintf("linger %s, %s, %s", version, language, platform), "JSON: " + strings.Join(schemas, ", ")})
}
