package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// patience is how long a person waits without asking whether it hangs.
	patience = 2 * time.Second
	// refresh is how often the line is written anew.
	refresh = 250 * time.Millisecond
	// eraseLine moves to the line's begin and erases it (ECMA-48, EL).
	eraseLine = "\r\x1b[K"
)

// progress tells a person on a terminal what takes so long, and that it goes on:
// the seconds count while nothing else moves. It writes nothing while work is
// quick.
type progress struct {
	out io.Writer
	// window is what was asked to be waited for.
	window  time.Duration
	started time.Time
	quit    chan struct{}
	ended   sync.WaitGroup

	mu          sync.Mutex // guards what follows
	what        string
	done, total int
	end         time.Time // about when all is done; zero where nobody knows
}

// startProgress shows progress until stop is called.
func startProgress(out io.Writer, window time.Duration) *progress {
	p := &progress{out: out, window: window, started: time.Now(), quit: make(chan struct{})}
	p.ended.Go(p.show)
	return p
}

func (p *progress) show() {
	next := time.NewTimer(patience)
	defer next.Stop()
	written := false
	for {
		select {
		case <-p.quit:
			if written {
				fmt.Fprint(p.out, eraseLine)
			}
			return
		case <-next.C:
			fmt.Fprint(p.out, eraseLine+p.line(time.Since(p.started)))
			written = true
			next.Reset(refresh)
		}
	}
}

// line has no word from the host in it.
func (p *progress) line(elapsed time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seconds := int(elapsed.Seconds())
	switch {
	case p.done < p.total && !p.end.IsZero():
		left := max(time.Until(p.end), time.Second).Round(time.Second)
		return fmt.Sprintf("%d s, %s: %d of %d, about %s left", seconds, p.what, p.done, p.total, left)
	case p.done < p.total:
		return fmt.Sprintf("%d s, %s: %d of %d", seconds, p.what, p.done, p.total)
	case elapsed < p.window:
		return fmt.Sprintf("%d s of the %s between two readings of the counters", seconds, p.window)
	default:
		return fmt.Sprintf("%d s", seconds)
	}
}

// report takes note of what is done.
func (p *progress) report(done, total int, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total, p.what = done, total, what
}

// reportLeft takes note of how long the rest takes, too.
func (p *progress) reportLeft(done, total int, what string, left time.Duration) {
	p.report(done, total, what)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = time.Now().Add(left)
}

// stop removes the line and waits until nothing more is written.
func (p *progress) stop() {
	close(p.quit)
	p.ended.Wait()
}
