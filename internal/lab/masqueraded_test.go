package lab

import (
	"context"
	"slices"
	"testing"
)

func family4and6(t *testing.T, name string, f func(t *testing.T, ipv6 bool)) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(name+", "+map[bool]string{false: "IPv4", true: "IPv6"}[ipv6], func(t *testing.T) {
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
			r := measured(t, func(ctx context.Context) (Recycled, error) { return measureRecycle(ctx, network{ipv6: ipv6}, c.arm) })
			if r.First.Opened != recycleConnects || r.Second.Opened != c.opened || r.Second.Failed != c.failed {
				t.Errorf("first %+v, second %+v, want %d opened and %d failed\n%s", r.First, r.Second, c.opened, c.failed, r.Ladder)
			}
			// Each SYN is sent at least once more, a second later.
			if least := 2 * c.failed; r.Dropped < least || (c.failed == 0) != (r.Dropped == 0) {
				t.Errorf("%d SYNs dropped, want at least %d", r.Dropped, least)
			}
		})
	}
}

func TestSecondClientMeetsTimeWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                           string
		arm                            collisionArm
		opened, failed, refused, ports int
	}{
		{"NAT forgets", collisionArm{}, collisions, 0, collisions, collisions},
		{"NAT forgets, tcp_rfc1337=1", collisionArm{rfc1337: true}, 0, collisions, collisions, collisions},
		{"NAT forgets, second clock is newer", collisionArm{secondAhead: true}, collisions, 0, 0, collisions},
		{"NAT remembers", collisionArm{natRemembers: true}, collisions, 0, 0, 0},
	} {
		family4and6(t, c.name, func(t *testing.T, ipv6 bool) {
			r := measured(t, func(ctx context.Context) (Collided, error) { return measureCollision(ctx, network{ipv6: ipv6}, c.arm) })
			slices.Sort(r.Second.Latencies)
			t.Logf("%+v\n%s", r.Second, r.Ladder)
			if r.Second.Opened != c.opened || r.Second.Failed != c.failed || r.Ports != c.ports {
				t.Errorf("%+v on %d ports of the first; want %d opened, %d failed, %d", r.Second, r.Ports, c.opened, c.failed, c.ports)
			}
			// A SYN that is sent again may be refused again.
			if r.Refused < c.refused || r.Resets < c.refused || c.refused == 0 && r.Refused > 0 {
				t.Errorf("%d refused, %d resets; want %d", r.Refused, r.Resets, c.refused)
			}
		})
	}
}
