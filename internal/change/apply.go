// Package change applies plans to the running host: it journals before it writes,
// verifies after, and takes back what nobody confirms. It is the only room of linger
// that changes a host, and it refuses to when the world is not the plan's.
package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/kernel/netns"
	"linger/internal/plan"
)

// Options say how a plan is applied.
type Options struct {
	StateDir string
	// Within is how long there is to confirm, a second at least.
	Within time.Duration
	Guard  deed.GuardMode
	// Live allows namespaces other than the caller's.
	Live bool
	// Wait is told for how long Apply waits before it begins, for the guard's base line.
	Wait func(left time.Duration)
}

// leastWithin and mostWithin bound the time to confirm: the sum with the time since boot
// has to be one, too.
const (
	leastWithin = time.Second
	mostWithin  = 366 * 24 * time.Hour
)

// baseLine is how long the guard wants to have looked before the change, where it may
// act by itself.
const baseLine = 10 * time.Second

// Apply writes a plan's values at run time, and returns when a process of its own
// watches over the deadline. On an error nothing is changed: what was written before
// it is written back.
func Apply(ctx context.Context, p *plan.Plan, o Options) (*Entry, error) {
	if o.Within < leastWithin {
		return nil, fmt.Errorf("%s to confirm: want a second at least", o.Within)
	}
	if o.Within > mostWithin {
		return nil, fmt.Errorf("%s to confirm: want a year at most; confirm it, if it is to stay for longer", o.Within)
	}
	if len(p.Changes) == 0 {
		return nil, errors.New("the plan changes nothing")
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := isThisHost(p.Host); err != nil {
		return nil, err
	}
	places, err := openPlaces(p, o.Live)
	if err != nil {
		return nil, err
	}
	defer closeAll(places)
	base, err := takeBaseLine(ctx, p, o)
	if err != nil {
		return nil, err
	}

	j, err := journal.Open(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := recoverAll(j, o.StateDir); errors.Is(err, journal.ErrCorrupt) {
		return nil, err // what is stuck of other changes holds its keys, and is told by status
	}
	if err := isFree(j, p); err != nil {
		return nil, err
	}
	if err := areOld(p, places); err != nil {
		return nil, err
	}
	return begin(j, p, places, base, o)
}

// isThisHost refuses the plan of another host, or of a boot that is over.
func isThisHost(h plan.Host) error {
	boot, _, err := journal.Clock()
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	switch {
	case h.Name != name:
		return fmt.Errorf("the plan is of host %s, and this is %s: plan again here", h.Name, name)
	case h.BootID != boot:
		return errors.New("the plan is of another boot of this host: plan again")
	}
	return nil
}

// openPlaces opens the namespace of each change.
func openPlaces(p *plan.Plan, live bool) ([]*netns.Handle, error) {
	var places []*netns.Handle
	for i := range p.Changes {
		h, own, err := open(p.Changes[i].Scope)
		if err != nil {
			closeAll(places)
			return nil, fmt.Errorf("the plan no longer fits: %w", err)
		}
		places = append(places, h)
		if !own && !live {
			closeAll(places)
			return nil, fmt.Errorf("%s is not the namespace of this shell: --live changes it while its programs run", p.Changes[i].Scope)
		}
	}
	return places, nil
}

func closeAll(places []*netns.Handle) {
	for _, h := range places {
		h.Close()
	}
}

// takeBaseLine is what tracing saw before the change. Where the guard may act it waits, so
// that the counters, and the tracing that began with this process, have ten seconds of the
// time before.
func takeBaseLine(ctx context.Context, p *plan.Plan, o Options) (sighting, error) {
	base := planned(p)
	if o.Guard != deed.GuardRollback {
		return base, nil
	}
	f := follow(p)
	defer f.close()
	left := baseLine - time.Since(p.MadeAt)
	switch {
	case f.missing.Load() != nil:
	case base.Traced == nil:
		left = baseLine
	default:
		left = max(left, baseLine-time.Duration(base.Traced.MS)*time.Millisecond)
	}
	left = min(left, baseLine) // the wall clock may have been set back
	if left > 0 {
		if o.Wait != nil {
			o.Wait(left)
		}
		select {
		case <-ctx.Done():
			return base, ctx.Err()
		case <-time.After(left):
		}
	}
	return base.add(f.see()), nil
}

// isFree refuses keys that another change has not settled.
func isFree(j *journal.Journal, p *plan.Plan) error {
	entries, err := entriesOf(j.Records())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Settled() {
			continue
		}
		for i := range p.Changes {
			c := &p.Changes[i]
			if slices.ContainsFunc(e.Plan.Changes, func(o plan.Change) bool { return o.Key == c.Key && o.Scope.Same(c.Scope) }) {
				return fmt.Errorf("%s in %s is pending in change %s: `linger confirm %s` or `linger rollback %s` first",
					c.Key, c.Scope, e.ID, e.ID, e.ID)
			}
		}
	}
	return nil
}

// areOld refuses a plan whose old values are not those of the kernel.
func areOld(p *plan.Plan, places []*netns.Handle) error {
	var problems []error
	for i := range p.Changes {
		c := &p.Changes[i]
		now, err := read(places[i], c.Key)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", c.Scope, err))
		case !plan.Same(now, c.Old):
			problems = append(problems, fmt.Errorf("%s in %s is %q, and was %q when the plan was made: plan again", c.Key, c.Scope, now, c.Old))
		}
	}
	return errors.Join(problems...)
}

// begin writes the values. The journal says what will be done, and a watcher lives,
// before the first is written; the watcher waits for the journal's lock, so that it
// takes over at once if this process dies.
func begin(j *journal.Journal, p *plan.Plan, places []*netns.Handle, base sighting, o Options) (*Entry, error) {
	program, err := installWatcher(o.StateDir)
	if err != nil {
		return nil, err
	}
	removeOldWatchers(j, program)
	if err := j.Reserve(); err != nil {
		return nil, err
	}
	_, now, err := journal.Clock()
	if err != nil {
		return nil, err
	}
	id := journal.NewID()
	deadline := now + o.Within
	err = record(j, kindBegun, id, begunDetail{
		Plan: p, DeadlineNS: int64(deadline), Deadline: time.Now().Add(o.Within).UTC().Truncate(time.Millisecond),
		Guard: o.Guard, Counters: counters(p), Traced: base, User: journal.User(),
	})
	if err != nil {
		return nil, err
	}
	e, err := entryOf(j.Records(), id)
	if err != nil {
		return nil, err
	}
	if err := writeAll(j, e, places, program, o.StateDir); err != nil {
		return nil, errors.Join(err, takeBack(j, e, deed.Reason{Kind: deed.NotApplied, Detail: err.Error()}))
	}
	return entryOf(j.Records(), id)
}

func writeAll(j *journal.Journal, e *Entry, places []*netns.Handle, program, dir string) error {
	if err := startWatcher(program, dir, e.ID, time.Duration(e.deadlineNS)); err != nil {
		return err
	}
	for i := range e.Plan.Changes {
		c := &e.Plan.Changes[i]
		if err := write(places[i], c.Key, c.New); err != nil {
			return fmt.Errorf("%s: %w", c.Scope, err)
		}
		if err := record(j, kindWritten, e.ID, writtenDetail{c.Key, c.Scope, c.New}); err != nil {
			return err
		}
	}
	return record(j, kindComplete, e.ID, nil)
}

// takeBack undoes what a failed apply wrote, and says so where it could not.
func takeBack(j *journal.Journal, e *Entry, reason deed.Reason) error {
	outcomes, err := undo(j, e, reason, false)
	if left := failed(outcomes); left != nil {
		return fmt.Errorf("and %w", left)
	}
	if err != nil {
		return fmt.Errorf("all values are the old ones again; and %w", err)
	}
	return nil
}

// record is Append, at moments at which a test may end the process.
func record(j *journal.Journal, kind journal.Kind, id string, detail any) error {
	step("before " + string(kind))
	err := j.Append(kind, id, detail)
	step("after " + string(kind))
	return err
}
