package cases

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
)

// measured runs an experiment on the wire.
func measured[R any](t *testing.T, measure func(ctx context.Context) (R, error)) R {
	t.Helper()
	r, err := measure(stagetest.Context(t))
	stagetest.NeedRoot(t, err)
	return r
}

func TestWhyLastAck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		without      lastAckWithout
		ipv6         bool
		fins, resets int
		told         error
	}{
		{"TIME_WAIT answers", withTimeWait, false, 2, 0, nil},
		{"TIME_WAIT answers, IPv6", withTimeWait, true, 2, 0, nil},
		{"tcp_max_tw_buckets=0", withoutBuckets, false, 2, 1, unix.ECONNRESET},
		{"tcp_max_tw_buckets=0, IPv6", withoutBuckets, true, 2, 1, unix.ECONNRESET},
		{"ss -K", withoutByDestroy, false, 2, 1, unix.ECONNRESET},
		{"SO_LINGER 0", withoutByReset, false, 0, 1, unix.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := measured(t, func(ctx context.Context) (lostAck, error) {
				return measureLastAck(ctx, stage.Wiring{IPv6: c.ipv6}, c.without)
			})
			t.Logf("\n%s", r.ladder)
			// On a slow machine the FIN comes once more before its answer is heard.
			if r.fins < c.fins || r.resets < c.resets || (r.resets > 0) != (c.resets > 0) || !errors.Is(r.told, c.told) {
				t.Errorf("%d FINs, %d resets, told %v; want at least %d, %d, %v", r.fins, r.resets, r.told, c.fins,
					c.resets, c.told)
			}
		})
	}
}

func TestWhyOldSegment(t *testing.T) {
	t.Parallel()
	type want struct {
		refused                            error
		corrupted, olderStamps, challenges int
		answered                           bool
	}
	wants := map[guard]want{
		guardTimeWait:   {refused: unix.EADDRNOTAVAIL, answered: true},
		guardTimeStamps: {olderStamps: 1, answered: true},
		guardClock:      {answered: true},
		guardAckBeyond:  {challenges: 1, answered: true},
		guardAckTooOld:  {challenges: 1, answered: true},
		noGuard:         {corrupted: len(newBytes), answered: true},
	}
	for _, guard := range []guard{guardTimeWait, guardTimeStamps, guardClock, guardAckBeyond, guardAckTooOld, noGuard} {
		for _, ipv6 := range []bool{false, true} {
			t.Run(string(guard)+", "+stagetest.Family(ipv6), func(t *testing.T) {
				t.Parallel()
				r := measured(t, func(ctx context.Context) (replayed, error) {
					return measureOldSegment(ctx, stage.Wiring{IPv6: ipv6}, guard)
				})
				t.Logf("\n%s", r.ladder)
				want := wants[guard]
				switch {
				case guard == guardAckBeyond && r.challenges == 0:
					want.challenges, want.answered = 0, false // older kernels drop it in silence
				case guard == noGuard:
					want.answered = r.answered // the ACK of bytes that are taken may be delayed
				}
				got := want
				got.corrupted, got.olderStamps, got.challenges, got.answered = r.corrupted, r.olderStamps, r.challenges,
					r.answered
				if got != want || !errors.Is(r.refused, want.refused) {
					t.Errorf("%+v, refused %v; want %+v", got, r.refused, want)
				}
				delivered := string(newBytes)
				switch guard {
				case guardTimeWait:
					delivered = ""
				case noGuard:
					delivered = string(oldBytes)
				}
				if string(r.delivered) != delivered {
					t.Errorf("delivered %q, want %q", r.delivered, delivered)
				}
			})
		}
	}
}
