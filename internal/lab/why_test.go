package lab

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// measured runs an experiment on the wire, with a generous limit.
func measured[R any](t *testing.T, measure func(ctx context.Context) (R, error)) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := measure(ctx)
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
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
			r := measured(t, func(ctx context.Context) (LastAck, error) {
				return measureLastAck(ctx, network{ipv6: c.ipv6}, c.without)
			})
			t.Logf("\n%s", r.Ladder)
			// On a slow machine the FIN comes once more before its answer is heard.
			if r.FINs < c.fins || r.Resets < c.resets || (r.Resets > 0) != (c.resets > 0) || !errors.Is(r.Told, c.told) {
				t.Errorf("%d FINs, %d resets, told %v; want at least %d, %d, %v", r.FINs, r.Resets, r.Told, c.fins, c.resets, c.told)
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
	wants := map[Guard]want{
		GuardTimeWait:   {refused: unix.EADDRNOTAVAIL, answered: true},
		GuardTimeStamps: {olderStamps: 1, answered: true},
		GuardClock:      {answered: true},
		GuardAckBeyond:  {challenges: 1, answered: true},
		GuardAckTooOld:  {challenges: 1, answered: true},
		NoGuard:         {corrupted: len(newBytes), answered: true},
	}
	for _, guard := range Guards() {
		for _, ipv6 := range []bool{false, true} {
			t.Run(string(guard)+", "+map[bool]string{false: "IPv4", true: "IPv6"}[ipv6], func(t *testing.T) {
				t.Parallel()
				r := measured(t, func(ctx context.Context) (OldSegment, error) {
					return measureOldSegment(ctx, network{ipv6: ipv6}, guard)
				})
				t.Logf("\n%s", r.Ladder)
				want := wants[guard]
				switch {
				case guard == GuardAckBeyond && r.Challenges == 0:
					want.challenges, want.answered = 0, false // older kernels drop it in silence
				case guard == NoGuard:
					want.answered = r.Answered // the ACK of bytes that are taken may be delayed
				}
				got := want
				got.corrupted, got.olderStamps, got.challenges, got.answered = r.Corrupted, r.OlderStamps, r.Challenges, r.Answered
				if got != want || !errors.Is(r.Refused, want.refused) {
					t.Errorf("%+v, refused %v; want %+v", got, r.Refused, want)
				}
				delivered := string(newBytes)
				switch guard {
				case GuardTimeWait:
					delivered = ""
				case NoGuard:
					delivered = string(oldBytes)
				}
				if string(r.Delivered) != delivered {
					t.Errorf("delivered %q, want %q", r.Delivered, delivered)
				}
			})
		}
	}
}
