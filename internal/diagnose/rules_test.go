package diagnose

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEachProblemHasItsFileAndItsPage(t *testing.T) {
	for _, rule := range Rules() {
		if _, err := os.Stat(string(rule.Slug) + ".go"); err != nil {
			t.Errorf("rule: %v", err)
		}
		page, err := os.ReadFile("../../docs/problems/" + string(rule.Slug) + ".md")
		if err != nil {
			t.Errorf("page: %v", err)
			continue
		}
		if want := fmt.Sprintf("# %s: ", rule.Slug); !strings.HasPrefix(string(page), want) {
			t.Errorf("the page of %s does not begin with %q", rule.Slug, want)
		}
		for _, section := range []string{"What is true when this is reported", "Check by hand", "What helps", "What does not help", "When to leave it alone"} {
			if !strings.Contains(string(page), "\n## "+section) {
				t.Errorf("the page of %s has no section %q", rule.Slug, section)
			}
		}
	}
}

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
		p := place{Namespace: &s.Namespaces[0], budgets: NewBudgets(&s.Namespaces[0])}
		if diff := cmp.Diff(tt.near, p.obstacles(&g)); diff != "" {
			t.Errorf("%+v: %s", tt, diff)
		}
		if diff := cmp.Diff(tt.loop, p.obstacles(&loopback)); diff != "" {
			t.Errorf("%+v on loopback: %s", tt, diff)
		}
	}
}
