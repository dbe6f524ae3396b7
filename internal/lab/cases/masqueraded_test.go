package cases

import (
	"context"
	"slices"
	"testing"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
)

func family4and6(t *testing.T, name string, f func(t *testing.T, ipv6 bool)) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(name+", "+stagetest.Family(ipv6), func(t *testing.T) {
			t.Parallel()
			f(t, ipv6)
		})
	}
}

// The rule lets the client through whose clock it saw first, and nobody else.
func TestRecycleShutsTheSecondClientOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		arm            recycleArm
		opened, failed int
	}{
		{"on", recycleArm{}, 0, recycleConnects},
		{"on, second without time stamps", recycleArm{secondWithout: true}, 0, recycleConnects},
		{"off", recycleArm{off: true}, recycleConnects, 0},
		{"off, second without time stamps", recycleArm{off: true, secondWithout: true}, recycleConnects, 0},
	} {
		family4and6(t, c.name, func(t *testing.T, ipv6 bool) {
			r := measured(t, func(ctx context.Context) (recycling, error) {
				return measureRecycle(ctx, stage.Wiring{IPv6: ipv6}, c.arm)
			})
			if r.first.opened != recycleConnects || r.second.opened != c.opened || r.second.failed != c.failed {
				t.Errorf("first %+v, second %+v, want %d opened and %d failed\n%s", r.first, r.second, c.opened, c.failed,
					r.ladder)
			}
			// Each SYN is sent at least once more, a second later.
			if least := 2 * c.failed; r.dropped < least || (c.failed == 0) != (r.dropped == 0) {
				t.Errorf("%d SYNs dropped, want at least %d", r.dropped, least)
			}
		})
	}
}

func TestSecondClientMeetsTimeWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                           string
		arm                            CollisionArm
		opened, failed, refused, ports int
	}{
		{"NAT forgets", CollisionArm{}, collisions, 0, collisions, collisions},
		{"NAT forgets, tcp_rfc1337=1", CollisionArm{RFC1337: true}, 0, collisions, collisions, collisions},
		{"NAT forgets, second clock is newer", CollisionArm{secondAhead: true}, collisions, 0, 0, collisions},
		{"NAT remembers", CollisionArm{NATRemembers: true}, collisions, 0, 0, 0},
	} {
		family4and6(t, c.name, func(t *testing.T, ipv6 bool) {
			r := measured(t, func(ctx context.Context) (collision, error) {
				return measureCollision(ctx, stage.Wiring{IPv6: ipv6}, c.arm)
			})
			slices.Sort(r.second.latencies)
			t.Logf("%+v\n%s", r.second, r.ladder)
			if r.second.opened != c.opened || r.second.failed != c.failed || r.ports != c.ports {
				t.Errorf("%+v on %d ports of the first; want %d opened, %d failed, %d", r.second, r.ports, c.opened,
					c.failed, c.ports)
			}
			// A SYN that is sent again may be refused again.
			if r.refused < c.refused || r.resets < c.refused || c.refused == 0 && r.refused > 0 {
				t.Errorf("%d refused, %d resets; want %d", r.refused, r.resets, c.refused)
			}
		})
	}
}
