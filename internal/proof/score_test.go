package proof_test

import (
	"slices"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/proof"
	"linger/internal/snapshot"
)

// truth is a service that leaks, and a pool beside it.
func truth() proof.Truth {
	return proof.Truth{
		Problem: "close-wait-leak", Netns: 2, Owner: "lab-server", Consequences: []diagnose.Slug{"fin-wait2-pileup"},
		Subject: subject(8080), Ends: []uint64{1, 2}, Ports: []uint16{8080}, Healthy: []string{"by-pool-1"},
	}
}

func subject(port uint16) diagnose.Subject {
	s := diagnose.Subject{Role: "acceptor"}
	s.Local.Port = port
	return s
}

func named(slug diagnose.Slug, severity diagnose.Severity, netns uint64, port uint16, owner string) diagnose.Finding {
	return diagnose.Finding{
		Problem: slug, Severity: severity, Netns: diagnose.Netns{Inode: netns}, Subject: subject(port),
		Owners: []snapshot.Owner{{Process: owner, PID: 7}},
	}
}

func TestTruthHolds(t *testing.T) {
	root := named("close-wait-leak", diagnose.Warning, 2, 8080, "lab-server")
	follows := named("fin-wait2-pileup", diagnose.Warning, 1, 8080, "")
	with := func(related ...diagnose.Finding) diagnose.Finding {
		f := root
		f.Related = related
		return f
	}
	for _, c := range []struct {
		name     string
		truth    proof.Truth
		findings []diagnose.Finding
		miss     string
	}{
		{"named", truth(), []diagnose.Finding{root}, ""},
		{"with what follows", truth(), []diagnose.Finding{with(follows)}, ""},
		{"with information", truth(), []diagnose.Finding{root, named("connection-churn", diagnose.Info, 3, 9000, "by-pool-1")}, ""},
		{"nothing", truth(), nil, "nothing was named"},
		{"another first", truth(), []diagnose.Finding{follows, root}, "fin-wait2-pileup was named first"},
		{
			"another namespace", truth(),
			[]diagnose.Finding{named("close-wait-leak", diagnose.Warning, 1, 8080, "lab-server")}, "another namespace",
		},
		{"another service", truth(), []diagnose.Finding{named("close-wait-leak", diagnose.Warning, 2, 8081, "lab-server")}, "named of acceptor"},
		{"another process", truth(), []diagnose.Finding{named("close-wait-leak", diagnose.Warning, 2, 8080, "init")}, "lab-server is not named"},
		{"what does not follow", truth(), []diagnose.Finding{with(named("tw-reuse", diagnose.Warning, 1, 8080, ""))}, "tw-reuse does not follow"},
		{
			"a bystander's process", truth(),
			[]diagnose.Finding{root, named("close-wait-leak", diagnose.Warning, 2, 8080, "by-pool-1")}, "by-pool-1 is blamed",
		},
		{
			"a bystander's connections", truth(),
			[]diagnose.Finding{root, named("fin-wait2-pileup", diagnose.Warning, 1, 9000, "")}, "healthy connections",
		},
		{
			"a bystander's namespace", truth(),
			[]diagnose.Finding{root, named("close-wait-leak", diagnose.Warning, 3, 8080, "")}, "healthy namespace",
		},
		{"health", proof.Truth{}, nil, ""},
		{"health, and information", proof.Truth{}, []diagnose.Finding{named("tw-reuse", diagnose.Info, 1, 1, "")}, ""},
		{"a false alarm", proof.Truth{}, []diagnose.Finding{named("tw-reuse", diagnose.Warning, 1, 1, "")}, "where nothing is wrong"},
	} {
		got := c.truth.Holds(c.findings)
		if c.miss == "" && got.Miss != "" || !strings.Contains(got.Miss, c.miss) {
			t.Errorf("%s: %q, want %q", c.name, got.Miss, c.miss)
		}
	}
}

// That nobody could be named is told apart from a wrong name, and from all else.
func TestNobodyIsNamed(t *testing.T) {
	nobody := named("close-wait-leak", diagnose.Warning, 2, 8080, "")
	nobody.Owners = nil
	elsewhere := nobody
	elsewhere.Netns.Inode = 1
	for _, c := range []struct {
		finding diagnose.Finding
		want    bool
	}{
		{nobody, true},
		{elsewhere, false},
		{named("close-wait-leak", diagnose.Warning, 2, 8080, "init"), false},
		{named("close-wait-leak", diagnose.Warning, 2, 8080, "lab-server"), false},
	} {
		if got := truth().Holds([]diagnose.Finding{c.finding}); got.Nobody != c.want {
			t.Errorf("%+v", got)
		}
	}
}

// The root is among the names even as information; other information is not.
func TestScoreNames(t *testing.T) {
	churn := named("connection-churn", diagnose.Info, 2, 8080, "lab-server")
	of := truth()
	of.Problem = "connection-churn"
	got := of.Holds([]diagnose.Finding{churn, named("tw-reuse", diagnose.Info, 1, 1, "")})
	if want := []diagnose.Slug{"connection-churn"}; got.Built != "connection-churn" || !slices.Equal(got.Named, want) {
		t.Errorf("built %s, named %v, want %v", got.Built, got.Named, want)
	}
	healthy := proof.Truth{}.Holds([]diagnose.Finding{churn})
	if healthy.Built != proof.Healthy || len(healthy.Named) > 0 || healthy.Miss != "" {
		t.Errorf("%+v", healthy)
	}
}
