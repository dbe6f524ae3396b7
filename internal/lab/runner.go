package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"linger/internal/proof"
)

// RunOptions say how experiments are run.
type RunOptions struct {
	// Arms are the variants wanted, by their ids; none means all. The base line always
	// runs.
	Arms []string
	// Repeat is how often each arm runs; 0 is three times, or once if Quick.
	Repeat int
	// Quick leaves the longest waits out.
	Quick bool
	// Captures is a directory that gets, as pcap files, what passes in experiments on the
	// wire; empty for none.
	Captures string
	// Progress is told after each run, from several goroutines.
	Progress func(Progress)
}

// Progress is how far a run of experiments has come.
type Progress struct {
	Done, Total int
	// Left is about how long the rest takes.
	Left time.Duration
}

// trialPatience bounds one run, whatever happens in it.
const trialPatience = 4 * time.Minute

// job is one run of one arm.
type job struct {
	experiment, arm, repeat int
	name                    string
	seconds                 float64
	load                    Load
	run                     Measure
}

// Run runs the experiments side by side and judges them. What could not run says so
// in its proof and hinders nothing else. When ctx is cancelled it undoes what stands
// and returns its error.
func Run(ctx context.Context, experiments []Experiment, o RunOptions) ([]proof.Proof, error) {
	repeat := cmp.Or(o.Repeat, 3)
	if o.Repeat == 0 && o.Quick {
		repeat = 1
	}
	proofs := make([]proof.Proof, len(experiments))
	var jobs []job
	for i, e := range experiments {
		proofs[i] = e.blank(o)
		if e.Cannot != "" {
			continue
		}
		for j, arm := range e.chosen(o) {
			for k := range repeat {
				jobs = append(jobs, job{i, j, k, e.Name + "." + arm.ID, arm.Seconds, cmp.Or(arm.Load, e.Load), arm.Run})
			}
		}
	}
	// The longest waits first: they decide when all ends.
	slices.SortStableFunc(jobs, func(a, b job) int {
		return cmp.Or(cmp.Compare(b.load%Alone, a.load%Alone), cmp.Compare(b.seconds, a.seconds))
	})

	started := time.Now()
	slots := int64(runtime.NumCPU())
	free := semaphore.NewWeighted(slots)
	var mu sync.Mutex
	var group sync.WaitGroup
	report := newReporter(jobs, slots, o.Progress)
	for _, j := range jobs {
		weight := int64(1)
		switch j.load {
		case Waits:
			weight = 0
		case Alone:
			weight = slots
		}
		if err := free.Acquire(ctx, weight); err != nil {
			break
		}
		group.Go(func() {
			defer free.Release(weight)
			run, err := j.do(ctx, o.Captures)
			mu.Lock()
			defer mu.Unlock()
			report.done(j)
			result := &proofs[j.experiment].Base
			if j.arm > 0 {
				result = &proofs[j.experiment].Variants[j.arm-1]
			}
			if err != nil {
				result.Cannot = cmp.Or(result.Cannot, err.Error())
				return
			}
			result.Runs = append(result.Runs, run)
			proofs[j.experiment].Seconds = time.Since(started).Seconds()
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	for i := range proofs {
		proofs[i].Judge()
	}
	return proofs, nil
}

// do is one run, from its namespaces to their end.
func (j job) do(ctx context.Context, captures string) (run proof.Run, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, trialPatience, fmt.Errorf("it took longer than %s", trialPatience))
	defer cancel()
	t := &Trial{}
	if captures != "" {
		name := fmt.Sprintf("%s.%d.", j.name, j.repeat+1)
		t.captures = filepath.Join(captures, name)
	}
	err = j.run(ctx, t)
	if err := errors.Join(err, t.close()); err != nil {
		return proof.Run{}, err
	}
	if t.run.Values == nil {
		return proof.Run{}, errors.New("nothing was measured")
	}
	return t.run, nil
}

// chosen are the arms that run: the base line first.
func (e Experiment) chosen(o RunOptions) []Arm {
	var arms []Arm
	for i, a := range e.Arms {
		if i == 0 || (len(o.Arms) == 0 || slices.Contains(o.Arms, a.ID)) && !(o.Quick && a.Long) {
			arms = append(arms, a)
		}
	}
	return arms
}

// blank is the proof before anything was measured.
func (e Experiment) blank(o RunOptions) proof.Proof {
	p := proof.Proof{
		Experiment: e.Name, Problem: string(e.Problem), Title: e.Title, Question: e.Question, Setup: e.Setup,
		Quantities: e.Quantities, Cannot: e.Cannot, Variants: []proof.Result{}, Base: proof.Result{Runs: []proof.Run{}},
	}
	for i, a := range e.chosen(o) {
		r := proof.Result{Arm: a.Arm, Runs: []proof.Run{}}
		if i == 0 {
			p.Base = r
			continue
		}
		p.Variants = append(p.Variants, r)
	}
	return p
}

// reporter knows how long the rest takes: the longest of the waits, or the work over
// all CPUs.
type reporter struct {
	tell    func(Progress)
	slots   float64
	started time.Time

	mu          sync.Mutex
	total       int
	ended       int
	work        float64 // CPU time that is left, in seconds of one slot
	longestWait float64
}

func newReporter(jobs []job, slots int64, tell func(Progress)) *reporter {
	r := &reporter{tell: tell, slots: float64(slots), started: time.Now(), total: len(jobs)}
	for _, j := range jobs {
		if j.load == Waits {
			r.longestWait = max(r.longestWait, j.seconds)
		}
		r.work += j.share(r.slots)
	}
	return r
}

func (j job) share(slots float64) float64 {
	switch j.load {
	case Waits:
		return 0
	case Alone:
		return j.seconds * slots
	}
	return j.seconds
}

func (r *reporter) done(j job) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	r.work = max(0, r.work-j.share(r.slots))
	left := 0.0
	if r.ended < r.total {
		left = max(r.work/r.slots, r.longestWait-time.Since(r.started).Seconds(), 1)
	}
	r.tell(Progress{Done: r.ended, Total: r.total, Left: time.Duration(left * float64(time.Second))})
}
