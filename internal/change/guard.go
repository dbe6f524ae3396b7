package change

import (
	"fmt"
	"math"

	"linger/internal/kernel/procnet"
	"linger/internal/plan"
)

// GuardMode is what is done when more connections fail than before.
type GuardMode string

// GuardWarn says so, GuardRollback takes the change back as well, GuardOff looks at
// nothing.
const (
	GuardWarn     GuardMode = "warn"
	GuardRollback GuardMode = "rollback"
	GuardOff      GuardMode = "off"
)

const (
	// guardEvents is from how many resets and failed connects on the guard judges.
	guardEvents = 20
	// guardRatio is how much more of them, for each connection opened, are too many.
	guardRatio = 2
	// guardChance is how likely it may be that a guard that speaks is wrong.
	guardChance = 0.01
)

// tally is what the guard compares: connections opened, and those that were reset or
// failed (RFC 4022). A connect() that finds no source port moves no counter: that
// takes tracing.
type tally struct{ opened, failed uint64 }

func tallyOf(c map[string]uint64) tally {
	return tally{
		opened: c["TcpActiveOpens"] + c["TcpPassiveOpens"],
		failed: c["TcpEstabResets"] + c["TcpAttemptFails"],
	}
}

// rise is how much was counted between two readings of the same namespaces.
func rise(from, to []plan.Counters) tally {
	var sum tally
	for _, first := range from {
		for _, second := range to {
			if first.Cookie != second.Cookie || first.Inode != second.Inode {
				continue
			}
			a, b := tallyOf(first.Total), tallyOf(second.Total)
			if b.opened >= a.opened && b.failed >= a.failed {
				sum.opened += b.opened - a.opened
				sum.failed += b.failed - a.failed
			}
		}
	}
	return sum
}

// worse tells whether connections fail more than guardRatio times as often as before,
// to be wrong in one of a hundred cases at most.
//
// With both counts from Poisson processes, the failures since are binomial among all
// of them, with the share r·n₁/(r·n₁+n₀) where r is the ratio. The 99 % lower bound of
// the ratio is over 2 where so many, or more, would come with a chance under 1 % if it
// were 2 (Clopper and Pearson, 1934).
func worse(before, since tally) bool {
	if before.opened == 0 || since.failed < guardEvents {
		return false
	}
	weight := guardRatio * float64(since.opened)
	p := weight / (weight + float64(before.opened))
	return binomialTail(since.failed, since.failed+before.failed, p) < guardChance
}

// binomialTail is the chance of k successes or more in n trials.
func binomialTail(k, n uint64, p float64) float64 {
	if k == 0 || p >= 1 {
		return 1
	}
	if p <= 0 {
		return 0
	}
	whole, _ := math.Lgamma(float64(n) + 1)
	sum := 0.0
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(i) + 1)
		b, _ := math.Lgamma(float64(n-i) + 1)
		term := math.Exp(whole - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		sum += term
		if float64(i) > float64(n)*p && term < sum*1e-12 {
			break // what is left is less than a rounding error
		}
	}
	return sum
}

// counters reads what the guard compares in each namespace of a plan that is there.
func counters(p *plan.Plan) []plan.Counters {
	list := []plan.Counters{}
	for i := range p.Changes {
		s := p.Changes[i].Scope
		if known(list, s) {
			continue
		}
		h, _, err := open(s)
		if err != nil {
			continue
		}
		var all map[string]uint64
		err = h.Do(func() (err error) {
			all, err = procnet.ReadCounters()
			return err
		})
		h.Close()
		if err != nil {
			continue
		}
		total := map[string]uint64{}
		for _, name := range plan.Guarded {
			total[name] = all[name]
		}
		list = append(list, plan.Counters{Cookie: s.Cookie, Inode: s.Inode, Total: total})
	}
	return list
}

func known(list []plan.Counters, s plan.Scope) bool {
	for _, c := range list {
		if c.Cookie == s.Cookie && c.Inode == s.Inode {
			return true
		}
	}
	return false
}

// Watched is what the guard knows of a change.
type Watched struct {
	// Before and Since are the connections opened, and those that were reset or failed,
	// while the base line was taken and after the change.
	OpenedBefore uint64 `json:"opened_before"`
	FailedBefore uint64 `json:"failed_before"`
	OpenedSince  uint64 `json:"opened_since"`
	FailedSince  uint64 `json:"failed_since"`
	// Worse is the verdict; Unknown says why there is none.
	Worse   bool   `json:"worse"`
	Unknown string `json:"unknown,omitempty"`
}

// watched compares the present with the base line of a change.
func (e *Entry) watched() Watched {
	before, since := rise(e.Plan.Counters, e.counters), rise(e.counters, counters(e.Plan))
	w := Watched{
		OpenedBefore: before.opened, FailedBefore: before.failed, OpenedSince: since.opened, FailedSince: since.failed,
		Worse: worse(before, since),
	}
	switch {
	case before.opened == 0:
		w.Unknown = "no connection was opened between plan and apply, so that there is no base line"
	case since.failed < guardEvents:
		w.Unknown = fmt.Sprintf("%d resets and failed connects: the guard judges from %d on", since.failed, guardEvents)
	}
	return w
}

func (w Watched) String() string {
	return fmt.Sprintf("%d of %d connections were reset or failed since, %d of %d before", w.FailedSince, w.OpenedSince, w.FailedBefore, w.OpenedBefore)
}
