package story

import (
	"testing"

	"linger/internal/snapshot"
)

func TestSeenOwners(t *testing.T) {
	life := 2.1
	traced := func(c snapshot.TracedCounts) *snapshot.TracedSums {
		return &snapshot.TracedSums{TracedCounts: c, Spreads: snapshot.Spreads{LifeMS: snapshot.Spread{P50: &life}}}
	}
	for want, o := range map[string]snapshot.Owner{
		"seen: closes 75 % of 400 connections first, which live 2 ms (median), 7 connects fail, made 290 of these TIME_WAIT sockets": {
			How: snapshot.Seen, Sockets: 290,
			Traced: traced(snapshot.TracedCounts{Opens: 400, ClosedHere: 300, ClosedThere: 100, Failed: map[string]uint64{"no-port": 7}}),
		},
		"seen: opened 1 connection": {How: snapshot.Seen, Traced: traced(snapshot.TracedCounts{Opens: 1})},
		"seen: closes 0 % of 30 connections first, which live 2 ms (median), drops 30 without a FIN": {
			How: snapshot.Seen, Traced: traced(snapshot.TracedCounts{Opens: 30, AbortedHere: 30}),
		},
		"has 3 of these sockets": {How: snapshot.Seen, Sockets: 3},
	} {
		if got := because(o, false); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
