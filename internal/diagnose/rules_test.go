package diagnose

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/snapshot"
)

func TestObstaclesToReuse(t *testing.T) {
	g := connector(client, service, 0, 1000, steady(1000, 60))
	loopback := connector("127.0.0.1", "127.0.0.1:80", 0, 1000, steady(1000, 60))
	for _, tt := range []struct {
		reuse, timestamps, delay string
		near, loop               []RemedyID
	}{
		{"0", "1", "1000", []RemedyID{ReuseOn}, []RemedyID{ReuseOn}},
		{"1", "1", "1000", nil, nil},
		{"2", "1", "1000", []RemedyID{ReuseOn}, nil},
		{"2", "0", "1000", []RemedyID{TimestampsOn, ReuseOn}, []RemedyID{TimestampsOn}},
		{"1", "1", "5000", []RemedyID{ReuseDelayDefault}, []RemedyID{ReuseDelayDefault}},
		{"1", "2", "500", nil, nil},
	} {
		s := world(set(keyReuse, tt.reuse), set(keyTimestamps, tt.timestamps), set(keyReuseDelay, tt.delay))
		p := &place{Namespace: &s.Namespaces[0], budgets: NewBudgets(&s.Namespaces[0])}
		if diff := cmp.Diff(tt.near, p.obstacles(&g)); diff != "" {
			t.Errorf("%+v: %s", tt, diff)
		}
		if diff := cmp.Diff(tt.loop, p.obstacles(&loopback)); diff != "" {
			t.Errorf("%+v on loopback: %s", tt, diff)
		}
	}
}

// What is told of each TIME_WAIT socket goes before what their ages and ports suggest.
func TestTakeoverDecides(t *testing.T) {
	lots := func(takeover snapshot.Takeover, otherParity int) snapshot.Group {
		g := connector(client, service, 10, 15000, steady(15000, 60))
		g.Takeover, g.OtherParity = &takeover, otherParity
		return g
	}
	has := func(d Diagnosis, slug Slug) (found *Finding) {
		for i := range d.Findings {
			for _, f := range append([]Finding{d.Findings[i]}, d.Findings[i].Related...) {
				if f.Problem == slug {
					found = &f
				}
			}
		}
		return found
	}
	for _, tt := range []struct {
		name        string
		takeover    snapshot.Takeover
		otherParity int
		reuse, bind bool
	}{
		{"all could be taken over", snapshot.Takeover{Ripe: 14800, Young: 200, RipeByDefault: 14800}, 0, true, false},
		{"the peer used no time stamps", snapshot.Takeover{NoTimestamps: 15000}, 0, false, false},
		{"all are bound, more than half of the range", snapshot.Takeover{Bound: 15000}, 7500, false, true},
		{"connect() has taken ports of both parities", snapshot.Takeover{Ripe: 15000, RipeByDefault: 15000}, 7500, true, false},
		{"some are bound", snapshot.Takeover{Bound: 3000, Ripe: 12000, RipeByDefault: 12000}, 1500, true, true},
	} {
		d := Judge(world(set(keyReuse, "0"), with(lots(tt.takeover, tt.otherParity))), DefaultThresholds())
		if f := has(d, TWReuse); (f != nil) != tt.reuse {
			t.Errorf("%s: tw-reuse %+v", tt.name, f)
		} else if f != nil && slices.ContainsFunc(f.Unsure, func(u string) bool { return strings.Contains(u, "estimated") }) {
			t.Errorf("%s: unsure of what is exact: %q", tt.name, f.Unsure)
		}
		f := has(d, BindBeforeConnect)
		if (f != nil) != tt.bind {
			t.Errorf("%s: bind-before-connect %+v", tt.name, f)
		}
		if f == nil {
			continue
		}
		if e, _ := f.Measured("ports-owned"); e.Value != float64(tt.takeover.Bound) {
			t.Errorf("%s: evidence %+v", tt.name, f.Evidence)
		}
	}
}
