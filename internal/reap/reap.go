// Package reap destroys sockets that somebody chose, and no others. It shows them first,
// writes into the journal before and after, and changes no setting.
package reap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/kernel/sockdiag"
)

// The kinds of record that tell of a reap: before the first socket is destroyed, and
// after the last.
const (
	begun journal.Kind = "reaping"
	ended journal.Kind = "reaped"
)

// ErrCannotDestroy means that this kernel ends no such socket.
var ErrCannotDestroy = sockdiag.ErrCannotDestroy

// Options say how a catch is reaped.
type Options struct {
	StateDir string
	// Rate is the most a second, 0 for no limit.
	Rate int
	// Progress is told how many are done.
	Progress func(done, total int)
}

// begunDetail is what the journal says before the first socket goes.
type begunDetail struct {
	Selection
	Cookie       uint64   `json:"netns_cookie"`
	Inode        uint64   `json:"netns_inode"`
	StateNames   []string `json:"states"`
	LocalTexts   []string `json:"local,omitempty"`
	RemoteTexts  []string `json:"remote,omitempty"`
	OlderSeconds float64  `json:"older_than_seconds,omitempty"`
	Sockets      int      `json:"sockets"`
	User         string   `json:"user"`
}

// batch is how many sockets are destroyed between two looks at the clock.
const batch = 1024

// Reap destroys the sockets of a catch, and no others: a connection that has the same
// four numbers by now has another cookie. The journal says so before the first one goes
// and after the last. When ctx is done it stops between two sockets, and tells how many
// are left. A result comes with an error where some were left.
func (c *Catch) Reap(ctx context.Context, o Options) (*deed.ReapResult, error) {
	j, err := journal.Open(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	// Room for the record of what was done, whatever fills the disk meanwhile.
	if err := j.Reserve(); err != nil {
		return nil, err
	}
	conn, err := sockdiag.Dial(c.handle.FD())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	result := &deed.ReapResult{ID: journal.NewID(), Left: len(c.sockets)}
	if err := j.Append(begun, result.ID, c.detail()); err != nil {
		return nil, err
	}
	err = c.destroy(ctx, conn, o, result)
	if err != nil {
		result.Cause = err.Error()
	}
	return result, errors.Join(err, j.Append(ended, result.ID, result))
}

func (c *Catch) detail() begunDetail {
	s := c.Selection
	d := begunDetail{
		Selection: s, Inode: c.handle.Inode(), Sockets: len(c.sockets), User: journal.User(), OlderSeconds: s.OlderThan.Seconds(),
	}
	d.Cookie, _ = c.handle.Cookie() // 0 where the kernel has none
	for _, state := range s.States {
		d.StateNames = append(d.StateNames, state.String())
	}
	for _, m := range s.Local {
		d.LocalTexts = append(d.LocalTexts, m.String())
	}
	for _, m := range s.Remote {
		d.RemoteTexts = append(d.RemoteTexts, m.String())
	}
	return d
}

func (c *Catch) destroy(ctx context.Context, conn *sockdiag.Conn, o Options, result *deed.ReapResult) error {
	start, total := time.Now(), len(c.sockets)
	targets := make([]sockdiag.Target, 0, batch)
	for done := 0; done < total; {
		n := min(batch, total-done)
		if o.Rate > 0 {
			n = min(n, max(1, o.Rate/10))
			// So many may be done by now as the rate allows.
			due := start.Add(time.Duration(float64(done) / float64(o.Rate) * float64(time.Second)))
			if err := sleepUntil(ctx, due); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return interruption(ctx)
		}
		targets = targets[:0]
		for _, f := range c.sockets[done : done+n] {
			targets = append(targets, f.target)
		}
		d, err := conn.Destroy(targets)
		result.Reaped += d.Done
		result.Gone += d.Gone
		result.Left = total - result.Reaped - result.Gone
		if err != nil {
			return err
		}
		done += n
		if o.Progress != nil {
			o.Progress(done, total)
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, due time.Time) error {
	wait := time.NewTimer(time.Until(due))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return interruption(ctx)
	}
}

func interruption(ctx context.Context) error {
	return fmt.Errorf("interrupted: %w", context.Cause(ctx))
}

// All are the reaps of the journal, the oldest first.
func All(stateDir string) ([]deed.Reap, error) {
	records, err := journal.Read(stateDir)
	if err != nil {
		return nil, err
	}
	reaps := []deed.Reap{}
	for _, r := range records {
		var into any
		switch r.Kind {
		case begun:
			reaps = append(reaps, deed.Reap{ID: r.ID, Began: r.At})
			into = &reaps[len(reaps)-1]
		case ended:
			at := slices.IndexFunc(reaps, func(e deed.Reap) bool { return e.ID == r.ID })
			if at < 0 {
				return nil, fmt.Errorf("%w: record %d ends a reap that did not begin", journal.ErrCorrupt, r.Seq)
			}
			reaps[at].Result = &deed.ReapResult{}
			into = reaps[at].Result
		default:
			continue
		}
		if err := json.Unmarshal(r.Detail, into); err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", journal.ErrCorrupt, r.Seq, err)
		}
	}
	return reaps, nil
}
