package score

import (
	"reflect"
	"strings"
	"testing"
)

// A seed draws the same again, and the seeds draw all that there is.
func TestDrawIsRepeatableAndReachesAll(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(400) {
		w := Draw(seed)
		if again := Draw(seed); !reflect.DeepEqual(w, again) {
			t.Fatalf("seed %d: %+v, and then %+v", seed, w, again)
		}
		seen["fault "+string(w.fault)] = true
		seen["IPv6 "+familyOf(w.options.IPv6)] = true
		for _, b := range w.bystanders {
			seen["bystander "+string(b.kind)] = true
			if !strings.Contains(w.String(), b.String()) {
				t.Errorf("seed %d does not tell of %s:\n%s", seed, b, w)
			}
		}
		if w.fault != "" && w.client == w.server {
			seen["both roles on one host"] = true
		}
		if !strings.Contains(w.String(), string(w.fault)) {
			t.Errorf("seed %d does not tell of %s:\n%s", seed, w.fault, w)
		}
	}
	want := []string{"fault ", "IPv6 IPv4", "IPv6 IPv6", "both roles on one host"}
	for _, s := range scenarios() {
		if s.Cannot == "" {
			want = append(want, "fault "+string(s.Slug))
		}
	}
	for _, k := range []bystanderKind{
		idle, pool, clientChurn, serviceChurn, burstOfChurn, crawler,
		loopback, reuser, relay, stragglers, accidents, sharer,
	} {
		want = append(want, "bystander "+string(k))
	}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("no seed draws %s", w)
		}
	}
}
