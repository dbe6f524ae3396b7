package cli

import (
	"fmt"
	"io"
	"time"
)

const (
	// patience is how long a person waits without asking whether it hangs.
	patience = 2 * time.Second
	// refresh is how often the line is written anew.
	refresh = 100 * time.Millisecond
	// eraseLine moves to the line's begin and erases it (ECMA-48, EL).
	eraseLine = "\r\x1b[K"
)

// progress tells a person on a terminal what takes so long. It writes nothing
// while work is quick.
type progress struct {
	out     io.Writer
	now     func() time.Time
	started time.Time
	// written is when the line was last written, zero if never.
	written time.Time
}

func newProgress(out io.Writer, now func() time.Time) *progress {
	return &progress{out: out, now: now, started: now()}
}

// report is called by one goroutine at a time. What it writes has no word from
// the host in it.
func (p *progress) report(done, total int, what string) {
	now := p.now()
	if now.Sub(p.started) < patience || now.Sub(p.written) < refresh {
		return
	}
	p.written = now
	fmt.Fprintf(p.out, "%s%s: %d of %d", eraseLine, what, done, total)
}

// clear removes the line.
func (p *progress) clear() {
	if !p.written.IsZero() {
		fmt.Fprint(p.out, eraseLine)
		p.written = time.Time{}
	}
}
