package explain_test

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"linger/docs"
	"linger/internal/diagnose"
	"linger/internal/explain"
)

func topics(t *testing.T) []explain.Topic {
	t.Helper()
	all, err := explain.Topics(docs.Pages)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryProblemAndStateIsFound(t *testing.T) {
	all := topics(t)
	for _, rule := range diagnose.Rules() {
		topic, ok := explain.Find(all, string(rule.Slug))
		if !ok || topic.Kind != explain.Problem || topic.Title == "" {
			t.Errorf("%s: %+v, %v", rule.Slug, topic.Title, ok)
		}
	}
	for _, name := range []string{"time-wait", "TIME_WAIT", "TimeWait", "fin_wait2", "FIN-WAIT-1", "CLOSE_WAIT", "closing", "last ack"} {
		if topic, ok := explain.Find(all, name); !ok || topic.Kind != explain.State {
			t.Errorf("state %q is not found", name)
		}
	}
	if topic, ok := explain.Find(all, "no-such"); ok {
		t.Errorf("no-such is %s", topic.Name)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// Each link of a page leads to a page.
func TestLinksResolve(t *testing.T) {
	err := fs.WalkDir(docs.Pages, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(docs.Pages, file)
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			to := path.Join(path.Dir(file), found[1])
			if _, err := fs.Stat(docs.Pages, to); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Each claim is judged, for a reason, and answered somewhere.
func TestClaims(t *testing.T) {
	claims, err := explain.Claims(docs.Pages)
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) < 25 {
		t.Errorf("%d claims", len(claims))
	}
	seen := map[string]bool{}
	for _, c := range claims {
		if !slices.Contains(explain.Verdicts, c.Verdict) || !link.MatchString(c.Why) || seen[c.Claim] {
			t.Errorf("%+v", c)
		}
		seen[c.Claim] = true
	}
	for _, word := range []string{"tcp_tw_recycle", "tcp_fin_timeout", "tcp_tw_reuse", "tcp_max_tw_buckets", "tcp_rfc1337", "tcp_timestamps", "SO_LINGER", "30000-60999"} {
		if !slices.ContainsFunc(claims, func(c explain.Claim) bool { return strings.Contains(c.Claim, word) }) {
			t.Errorf("no claim about %s", word)
		}
	}
}
