package lab_test

import (
	"math"
	"testing"

	"linger/internal/lab/cases"
	"linger/internal/lab/stagetest"
)

// A quarter of a million entries are told by the first 16,384: a third of them is in
// the table's TIME_WAIT.
func TestATableIsToldByASample(t *testing.T) {
	t.Parallel()
	b := build(t, "conntrack-full", cases.Options{})
	s, _ := look(t, stagetest.Context(t), b.Topology.Nodes[1])
	table := s.Namespaces[0].Conntrack
	if table == nil || table.Sample == nil {
		t.Fatalf("no sample was taken: %s", describe(table))
	}
	sample := table.Sample
	if sample.Entries != 16384 || sample.Complete {
		t.Errorf("%d entries were looked at, all of them: %v", sample.Entries, sample.Complete)
	}
	// Five times the deviation of a binomial distribution: one run in a million fails.
	const third = 1. / 3
	slack := 5 * math.Sqrt(third*(1-third)/float64(sample.Entries))
	share := float64(sample.States["time_wait"]) / float64(sample.Entries)
	if math.Abs(share-third) > slack {
		t.Errorf("%.3f are in TIME_WAIT, want %.3f ± %.3f", share, third, slack)
	}
	if sample.States["established"]+sample.States["time_wait"] != sample.Entries || sample.Translated != 0 {
		t.Errorf("the sample holds what was not made: %s", describe(sample))
	}
}

// Each translated connection is seen with the address and port that its peer sees.
func TestTranslationsAreSeen(t *testing.T) {
	t.Parallel()
	b := build(t, "nat-port-exhaustion", cases.Options{})
	s, _ := look(t, stagetest.Context(t), b.Topology.Nodes[0])
	sample := s.Namespaces[0].Conntrack.Sample
	if sample == nil || len(sample.Translations) != 1 {
		t.Fatalf("want one translation: %s", describe(sample))
	}
	got := sample.Translations[0]
	if got.Source.Addr != b.Topology.Nodes[0].IPv4 || got.Destination.Addr != b.Topology.Nodes[1].IPv4 || got.Destination.Port != 8080 {
		t.Errorf("%s to %s", got.Source, got.Destination)
	}
	if !sample.Complete || got.Entries != 32 || sample.Translated != got.Entries {
		t.Errorf("%d of %d entries, want the 32 ports of the rule", got.Entries, sample.Translated)
	}
}
