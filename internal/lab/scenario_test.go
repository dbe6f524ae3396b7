package lab_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stagetest"
	"linger/internal/tcp"
)

// scenario is the one that builds a problem.
func scenario(t testing.TB, slug diagnose.Slug) cases.Scenario {
	t.Helper()
	for _, c := range cases.All() {
		if c.Scenario != nil && c.Scenario.Slug == slug {
			return *c.Scenario
		}
	}
	t.Fatalf("nothing builds %s", slug)
	return cases.Scenario{}
}

func build(t testing.TB, slug diagnose.Slug, o cases.Options) *cases.Built {
	t.Helper()
	b, err := scenario(t, slug).Build(stagetest.Context(t), o)
	stagetest.NeedRoot(t, err)
	stagetest.Closing(t, b)
	return b
}

// What /proc/net/tcp says of each scenario, at the node that a finding has to name:
// the state that makes the problem, and none of it in the cured state.
func TestScenariosAreWhatTheySay(t *testing.T) {
	t.Parallel()
	state := map[diagnose.Slug]struct {
		state         tcp.State
		least, healed int
	}{
		// Fewer than its 2000 connections: the client's ports are free again at once, so
		// that some come again and replace the TIME_WAIT socket that they left.
		"connection-churn":    {tcp.TimeWait, 1600, 0},
		"client-closes-first": {tcp.TimeWait, 1900, 0},
		"port-exhaustion":     {tcp.TimeWait, 900, 0},
		"tw-reuse":            {tcp.TimeWait, 850, 900},
		"time-wait-overflow":  {tcp.TimeWait, 950, 1 << 30},
		"close-wait-leak":     {tcp.CloseWait, 200, 0},
		"fin-timeout":         {tcp.Established, 20, 20},

		"conntrack-full":        {tcp.Established, 0, 0},
		"nat-port-exhaustion":   {tcp.Established, 32, 1 << 30},
		"address-in-use":        {tcp.TimeWait, 90, 1 << 30},
		"bind-before-connect":   {tcp.Established, 450, 451},
		"accept-queue-overflow": {tcp.CloseWait, 10, 1 << 30},
		"fin-wait2-pileup":      {tcp.FinWait2, 150, 0},
		"orphan-pileup":         {tcp.FinWait1, 150, 0},
		"resource-pressure":     {tcp.Established, 20, 20},
		"syn-on-time-wait":      {tcp.TimeWait, 100, 1 << 30},
		"vanished-connections":  {tcp.TimeWait, 0, 1 << 30},
	}
	for _, s := range possible() {
		want, ok := state[s.Slug]
		if !ok {
			t.Errorf("%s: no expectation", s.Slug)
			continue
		}
		for _, ipv6 := range []bool{false, true} {
			for _, cured := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/cured=%v", s.Slug, stagetest.Family(ipv6), cured), func(t *testing.T) {
					t.Parallel()
					b := build(t, s.Slug, cases.Options{IPv6: ipv6, Cured: cured})
					n := 0
					// The last segments may still be under way.
					for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
						all := stagetest.Rows(t, b.Expect.Node)
						n = stagetest.Count(all, want.state, b.Expect.Local, b.Expect.Remote)
						if cured || n >= want.least || time.Now().After(deadline) {
							break
						}
					}
					if !cured && n < want.least {
						t.Errorf("%d sockets in %s, want at least %d", n, want.state, want.least)
					}
					if cured && n > want.healed {
						t.Errorf("%d sockets in %s when cured, want at most %d", n, want.state, want.healed)
					}
				})
			}
		}
	}
}

func TestSizeIsBounded(t *testing.T) {
	for _, size := range []int{-1, 20_001} {
		if _, err := scenario(t, "fin-timeout").Build(t.Context(), cases.Options{Size: size}); err == nil {
			t.Errorf("built a scenario of size %d", size)
		}
	}
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	once := func() {
		b, err := scenario(t, "fin-timeout").Build(stagetest.Context(t), cases.Options{})
		stagetest.NeedRoot(t, err)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	once() // lets the runtime open what it keeps
	before := descriptors(t)
	for range 3 {
		once()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
