package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/tcp"
)

// limit bounds a test's whole work on the kernel.
const limit = 3 * time.Minute

func context3m(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func build(t testing.TB, slug diagnose.Slug, o lab.Options) *lab.Built {
	t.Helper()
	b, err := lab.Build(context3m(t), slug, o)
	skipWithoutRoot(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func skipWithoutRoot(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func familyName(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
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
				t.Run(fmt.Sprintf("%s/%s/cured=%v", s.Slug, familyName(ipv6), cured), func(t *testing.T) {
					t.Parallel()
					b := build(t, s.Slug, lab.Options{IPv6: ipv6, Cured: cured})
					n := 0
					// The last segments may still be under way.
					for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
						all, err := rows(b.Expect.Node)
						if err != nil {
							t.Fatal(err)
						}
						n = count(all, want.state, b.Expect.Local, b.Expect.Remote)
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

func TestUnknownScenarioAndSize(t *testing.T) {
	if _, err := lab.Build(t.Context(), "no-such", lab.Options{}); err == nil {
		t.Error("built a scenario that does not exist")
	}
	if _, err := lab.Build(t.Context(), "fin-timeout", lab.Options{Size: lab.MaxSize + 1}); err == nil {
		t.Error("built a scenario beyond the largest size")
	}
}
