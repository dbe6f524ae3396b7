package change

import (
	"math"

	"linger/internal/deed"
	"linger/internal/kernel/procnet"
	"linger/internal/plan"
)

const (
	// guardEvents is from how many resets and failed connects on the guard judges.
	guardEvents = 20
	// guardRatio is how much more of them, for each connection opened, are too many.
	guardRatio = 2
	// guardChance is how likely it may be that a guard that speaks is wrong.
	guardChance = 0.01
)

// tallyOf counts as failed the connections that were reset, and connects that failed
// (RFC 4022).
func tallyOf(c map[string]uint64) deed.Tally {
	return deed.Tally{
		Opened: c["TcpActiveOpens"] + c["TcpPassiveOpens"],
		Failed: c["TcpEstabResets"] + c["TcpAttemptFails"],
	}
}

// rise is how much was counted between two readings of the same namespaces.
func rise(from, to []plan.Counters) deed.Tally {
	var sum deed.Tally
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
func worse(before, since deed.Tally) bool {
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

// watched compares the present with the base line of a change; since is what tracing saw
// of it so far.
func (e *Entry) watched(since sighting) deed.Watched {
	before, now := rise(e.Plan.Counters, e.counters), rise(e.counters, counters(e.Plan))
	w := deed.Watched{
		OpenedBefore: before.Opened, FailedBefore: before.Failed, OpenedSince: now.Opened, FailedSince: now.Failed,
		NoPort: noPort(e.base, since),
	}
	switch {
	case before.Opened == 0:
		w.Unknown = deed.Unknown{Kind: deed.NoBaseLine}
	case now.Failed < guardEvents:
		w.Unknown = deed.Unknown{Kind: deed.TooFew, Few: now.Failed, Least: guardEvents}
	}
	w.Worse = worse(before, now) || w.NoPort.Worse
	return w
}
