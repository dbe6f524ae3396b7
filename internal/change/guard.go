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

// Tally is what the guard compares: connections opened, and those that failed.
type Tally struct {
	Opened uint64 `json:"opened"`
	Failed uint64 `json:"failed"`
}

// tallyOf counts as failed the connections that were reset, and connects that failed
// (RFC 4022).
func tallyOf(c map[string]uint64) Tally {
	return Tally{
		Opened: c["TcpActiveOpens"] + c["TcpPassiveOpens"],
		Failed: c["TcpEstabResets"] + c["TcpAttemptFails"],
	}
}

// rise is how much was counted between two readings of the same namespaces.
func rise(from, to []plan.Counters) Tally {
	var sum Tally
	for _, first := range from {
		for _, second := range to {
			if first.Cookie != second.Cookie || first.Inode != second.Inode {
				continue
			}
			a, b := tallyOf(first.Total), tallyOf(second.Total)
			if b.Opened >= a.Opened && b.Failed >= a.Failed {
				sum.Opened += b.Opened - a.Opened
				sum.Failed += b.Failed - a.Failed
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
func worse(before, since Tally) bool {
	if before.Opened == 0 || since.Failed < guardEvents {
		return false
	}
	weight := guardRatio * float64(since.Opened)
	p := weight / (weight + float64(before.Opened))
	return binomialTail(since.Failed, since.Failed+before.Failed, p) < guardChance
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
	// NoPort is what tracing sees, and no counter tells.
	NoPort NoPort `json:"no_port"`
	// Worse is the verdict on both; Unknown says why there is none on the counters.
	Worse   bool   `json:"worse"`
	Unknown string `json:"unknown,omitempty"`
}

// watched compares the present with the base line of a change; since is what tracing saw
// of it so far.
func (e *Entry) watched(since sighting) Watched {
	before, now := rise(e.Plan.Counters, e.counters), rise(e.counters, counters(e.Plan))
	w := Watched{
		OpenedBefore: before.Opened, FailedBefore: before.Failed, OpenedSince: now.Opened, FailedSince: now.Failed,
		NoPort: noPort(e.base, since),
	}
	switch {
	case before.Opened == 0:
		w.Unknown = "no connection was opened between plan and apply, so that there is no base line"
	case now.Failed < guardEvents:
		w.Unknown = fmt.Sprintf("%d resets and failed connects: the guard judges from %d on", now.Failed, guardEvents)
	}
	w.Worse = worse(before, now) || w.NoPort.Worse
	return w
}

func (w Watched) String() string {
	return w.Counted() + "; " + w.NoPort.String()
}

// Counted tells of the counters alone.
func (w Watched) Counted() string {
	return fmt.Sprintf("%d of %d connections were reset or failed since, %d of %d before", w.FailedSince, w.OpenedSince, w.FailedBefore, w.OpenedBefore)
}
