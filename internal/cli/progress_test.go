package cli

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// screen is what was written so far, for a reader in another goroutine.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestProgressIsSilentWhileWorkIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := startProgress(&out, time.Second)
		p.report(1, 3, "reading sockets")
		time.Sleep(patience - time.Millisecond)
		p.stop()
		if out.String() != "" {
			t.Errorf("wrote %q before anybody waited", out.String())
		}
	})
}

// TestProgressGoesOn: a person sees that it goes on, also while nothing is reported,
// and nothing of it is left at the end.
func TestProgressGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := startProgress(&out, 5*time.Second)
		shown := func(after time.Duration, want string) {
			time.Sleep(after)
			synctest.Wait()
			if !strings.HasSuffix(out.String(), eraseLine+want) {
				t.Errorf("wrote %q, want %q last", out.String(), want)
			}
		}
		p.report(1, 3, "reading sockets")
		shown(patience, "2 s, reading sockets: 1 of 3")
		shown(time.Second, "3 s, reading sockets: 1 of 3")
		p.report(3, 3, "reading sockets")
		shown(time.Second, "4 s of the 5s between two readings of the counters")
		shown(time.Second, "5 s")
		p.stop()
		shown(time.Minute, "")
	})
}

// TestProgressTellsTheTimeLeft: it counts down by itself, and is never less than a second.
func TestProgressTellsTheTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := startProgress(&out, 0)
		p.reportLeft(1, 4, "builds", 10*time.Second)
		for _, step := range []struct {
			after time.Duration
			want  string
		}{{patience, "2 s, builds: 1 of 4, about 8s left"}, {time.Minute, "62 s, builds: 1 of 4, about 1s left"}} {
			time.Sleep(step.after)
			synctest.Wait()
			if !strings.HasSuffix(out.String(), eraseLine+step.want) {
				t.Errorf("wrote %q, want %q last", out.String(), step.want)
			}
		}
		p.stop()
	})
}
