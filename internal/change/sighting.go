package change

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"linger/internal/deed"
	"linger/internal/kernel/trace"
	"linger/internal/plan"
)

// sighting is what tracing saw in the namespaces of a plan, or why it saw nothing.
type sighting struct {
	Traced  *plan.Traced `json:"traced,omitempty"`
	Unknown deed.Unknown `json:"unknown,omitzero"`
}

// add is the sum of two sightings, one after the other.
func (s sighting) add(other sighting) sighting {
	switch {
	case other.Traced == nil && s.Traced == nil:
		return sighting{Unknown: cmp.Or(other.Unknown, s.Unknown)}
	case other.Traced == nil:
		return s
	case s.Traced == nil:
		return other
	}
	return sighting{Traced: &plan.Traced{
		MS: s.Traced.MS + other.Traced.MS, Opened: s.Traced.Opened + other.Traced.Opened, NoPort: s.Traced.NoPort + other.Traced.NoPort,
	}}
}

// planned is what was seen while the plan was made.
func planned(p *plan.Plan) sighting {
	sum := sighting{Unknown: deed.Unknown{Kind: deed.Untraced}}
	for _, c := range p.Counters {
		if c.Traced == nil {
			continue
		}
		if sum.Traced == nil { // namespaces are traced at one time
			sum = sighting{Traced: &plan.Traced{MS: c.Traced.MS}}
		}
		sum.Traced.Opened += c.Traced.Opened
		sum.Traced.NoPort += c.Traced.NoPort
	}
	return sum
}

// follower has the kernel tell of each connect() that finds no source port, by BPF
// programs that end with this process, however it ends.
type follower struct {
	plan     *plan.Plan
	tracer   *trace.Tracer
	began    time.Time
	counters []plan.Counters
	noPort   atomic.Uint64
	stop     context.CancelFunc
	told     sync.WaitGroup
	// missing is why nothing is followed, or no more.
	missing atomic.Pointer[deed.Unknown]
}

func follow(p *plan.Plan) *follower {
	f := &follower{plan: p, began: time.Now(), counters: counters(p)}
	var err error
	f.tracer, err = trace.Load(trace.Options{
		Events: &trace.Filter{Endings: []trace.Ending{trace.NoPort}},
		// These bound what is added up, of which nothing is read.
		MaxGroups: 64, MaxConnections: 4096,
	})
	if err != nil {
		f.miss(err)
		return f
	}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(context.Background())
	f.told.Go(func() {
		_, err := f.tracer.Events(ctx, func(e *trace.Event) {
			// The inode number is that of a namespace that is there, and so is no other's.
			if slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Scope.Inode == uint64(e.NetnsInode) }) {
				f.noPort.Add(uint64(e.Weight))
			}
		})
		if err != nil {
			f.miss(err)
		}
	})
	return f
}

func (f *follower) miss(err error) {
	f.missing.Store(&deed.Unknown{Kind: deed.NotSeen, Cause: err.Error()})
}

// close ends it. What it does not close, the end of the process does.
func (f *follower) close() {
	if f.tracer == nil {
		return
	}
	f.stop()
	f.told.Wait()
	_ = f.tracer.Close()
}

// see is what was seen since the beginning.
func (f *follower) see() sighting {
	if why := f.missing.Load(); why != nil {
		return sighting{Unknown: *why}
	}
	return sighting{Traced: &plan.Traced{
		MS: time.Since(f.began).Milliseconds(), Opened: rise(f.counters, counters(f.plan)).Opened, NoPort: f.noPort.Load(),
	}}
}

// sightingFile is where a watcher tells what it sees, for whoever asks for the status.
func sightingFile(dir, id string) string { return filepath.Join(dir, "seen-"+id) }

func (s sighting) tell(dir, id string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := sightingFile(dir, id)
	err = os.WriteFile(path+".new", text, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}

// sighted is what the watcher of a change tells.
func sighted(dir, id string) sighting {
	var s sighting
	text, err := os.ReadFile(sightingFile(dir, id))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	switch {
	case !isWatched(dir, id):
		return sighting{Unknown: deed.Unknown{Kind: deed.NoWatcher}}
	case errors.Is(err, os.ErrNotExist):
		return sighting{Unknown: deed.Unknown{Kind: deed.NothingYet}}
	case err != nil:
		return sighting{Unknown: deed.Unknown{Kind: deed.NotSeen, Cause: err.Error()}}
	}
	return s
}

func noPort(before, since sighting) deed.NoPort {
	n := deed.NoPort{Before: before.tally(), Since: since.tally()}
	if n.Before != nil && n.Since != nil {
		n.Worse = worse(*n.Before, *n.Since)
	} else {
		n.Unknown = cmp.Or(since.Unknown, before.Unknown)
	}
	return n
}

func (s sighting) tally() *deed.Tally {
	if s.Traced == nil {
		return nil
	}
	return &deed.Tally{Opened: s.Traced.Opened, Failed: s.Traced.NoPort}
}
