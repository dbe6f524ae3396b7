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

// circulating are the claims that engineers meet, each by words that name it.
var circulating = []struct{ claim, words string }{
	{"TIME_WAIT keeps a server from accepting", "keep a server from accepting"},
	{"tables of a restaurant that stay reserved", "restaurant"},
	{"the side that closes first has it", "closes first has the TIME_WAIT"},
	{"two maximum segment lifetimes, up to two minutes", "twice the maximum segment lifetime"},
	{"for lost ACKs and for old segments", "lost ACKs and for old segments"},
	{"it exhausts the ports of a host", "exhausts the ports"},
	{"it keeps connections from coming in, which is worse", "keep a server from accepting"},
	{"ss, grep and wc show the problem", "wc -l"},
	{"a lower tcp_fin_timeout halves the time", "tcp_fin_timeout shortens"},
	{"a lower tcp_fin_timeout helps indirectly", "at least helps a little"},
	{"a tcp_fin_timeout between 60 and 120 is generous", "61 to 119"},
	{"append to sysctl.conf and load it", "/etc/sysctl.conf"},
	{"a client that closes fast leaves TIME_WAIT on the server", "client that closes quickly"},
	{"many source ports to one service blame the server", "Many local ports to one remote port"},
	{"linger with zero, where one owns the client", "SO_LINGER with zero avoids"},
	{"who receives the reset has no TIME_WAIT", "receives a reset skips"},
	{"data in transit may be lost by it", "SO_LINGER with zero avoids"},
	{"short connections in great number are the cause", "many short connections"},
	{"awk's third column is the local address", "third column"},
	{"widen the range to 30000-60999", "30000-60999"},
	{"a faster clean-up is critical", "tcp_fin_timeout shortens"},
	{"tcp_tw_recycle shortens it", "tcp_tw_recycle makes"},
	{"tcp_tw_recycle looks at each connection's time stamps", "only reuses connections with newer time stamps"},
	{"check whether tcp_tw_recycle is on", "check that tcp_tw_recycle"},
	{"tcp_tw_recycle hurts behind NAT", "hurts clients behind NAT"},
	{"tcp_tw_reuse wants a newer time stamp in the SYN", "newer time stamp in the SYN"},
	{"tcp_tw_reuse is 0 by default", "is 0 unless"},
	{"tcp_tw_reuse on a server", "lets a server reuse"},
	{"tcp_tw_reuse on a client", "helps a client"},
	{"fewer tcp_max_tw_buckets", "tcp_max_tw_buckets is a cure"},
	{"the log tells of the overflow", "time wait bucket table overflow"},
	{"tcp_rfc1337=1 protects", "tcp_rfc1337"},
	{"no time stamps, no TIME_WAIT", "tcp_timestamps=0"},
	{"slow hosts keep it for longer", "slow CPU"},
	{"resets and firewalls end established connections", "vanish are killed"},
	{"conntrack's TIME_WAIT is the socket's", "conntrack's TIME_WAIT"},
	{"SYN cookies and orphans matter for it", "tcp_syncookies"},
	{"settings are all that one can change", "Only the kernel's settings"},
}

func TestNoClaimIsMissing(t *testing.T) {
	claims, err := explain.Claims(docs.Pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range circulating {
		if !slices.ContainsFunc(claims, func(known explain.Claim) bool { return strings.Contains(known.Claim, c.words) }) {
			t.Errorf("not answered: %s", c.claim)
		}
	}
}

// Each claim has a reason, and is answered somewhere.
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
		if !link.MatchString(c.Why) || seen[c.Claim] {
			t.Errorf("%+v", c)
		}
		seen[c.Claim] = true
	}
	for _, word := range []string{
		"tcp_tw_recycle", "tcp_fin_timeout", "tcp_tw_reuse", "tcp_max_tw_buckets", "tcp_rfc1337", "tcp_timestamps", "SO_LINGER", "30000-60999",
	} {
		if !slices.ContainsFunc(claims, func(c explain.Claim) bool { return strings.Contains(c.Claim, word) }) {
			t.Errorf("no claim about %s", word)
		}
	}
}
