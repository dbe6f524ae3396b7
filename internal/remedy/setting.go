package remedy

import (
	"fmt"
	"math"
	"strconv"

	"linger/internal/capacity"
	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

const loadBalanced = "the destination is an address that several hosts share (a balancer or NAT) and their time stamps have " +
	"no common clock: connects would stall now and then"

// sourced is what a setting does, and where that stands.
func sourced(s *setting.Setting) string { return s.Does + " (" + s.Source + ")." }

func reuseOn(at *site) Remedy {
	const key = setting.TWReuse
	reuse := setting.Of(key)
	return Remedy{
		Title:     "Let connect() take over ports in TIME_WAIT",
		Kind:      Setting,
		Now:       at.set(key, "1"),
		Sets:      []Assignment{{key, "1"}},
		Persist:   at.persist(key, "1"),
		Frees:     at.reusing(at.budgets.WithReuse()),
		Risk:      reuse.Risk,
		NotWhen:   loadBalanced,
		Mechanism: sourced(reuse) + " It serves outgoing connections alone, and none that bind a port first.",
		Kernels: fmt.Sprintf("for each namespace from %s; 2, loopback alone, is the default from %s; the delay is about a second, "+
			"and a setting from %s",
			reuse.Own, reuse.Default().From, setting.Of(setting.TWReuseDelay).Since),
	}
}

// reusing is what a connector gains where its ports may be taken over as in those
// budgets.
func (at *site) reusing(changed diagnose.Budgets) string {
	if !at.counted {
		return "the ports in TIME_WAIT that are older than a second"
	}
	b, _ := changed.Of(at.group)
	forEver := fmt.Sprintf("%s closes/s for ever in place of %s", figure.Rate(b.Sustainable), figure.Rate(at.budget.Sustainable))
	if t := at.group.Takeover; t != nil {
		freed := fmt.Sprintf("exactly %s of %s ports in TIME_WAIT now",
			figure.Count(at.budget.Occupied()-b.Occupied()), figure.Count(at.budget.Occupied()))
		if t.Never() > 0 {
			freed += fmt.Sprintf(" (%s are bound, %s lack time stamps)", figure.Count(t.Bound), figure.Count(t.NoTimestamps))
		}
		return freed + "; from then on " + forEver
	}
	if !at.budgets.Timestamps() {
		return fmt.Sprintf("none of the %s ports in TIME_WAIT now, which have no time stamps; from then on %s",
			figure.Count(at.budget.Occupied()), forEver)
	}
	return fmt.Sprintf("about %s of %s ports in TIME_WAIT now; %s",
		figure.Count(at.budget.Occupied()-b.Occupied()), figure.Count(at.budget.Occupied()), forEver)
}

func reuseDelayDefault(at *site) Remedy {
	const key = setting.TWReuseDelay
	delay := setting.Of(key)
	value := delay.Default().Value
	return Remedy{
		Title:     "Put the delay of tcp_tw_reuse back at one second",
		Kind:      Setting,
		Now:       at.set(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   at.persist(key, value),
		Frees:     at.reusing(at.budgets.WithReuse().WithDefaultDelay()),
		Risk:      "none beyond that of tcp_tw_reuse itself; whoever raised it had a reason",
		NotWhen:   "it was raised because the peer's time stamp clock is slow",
		Mechanism: "The delay, in milliseconds, is the age from which connect() takes a TIME_WAIT socket over.",
		Kernels:   delay.Kernels,
	}
}

func timestampsOn(at *site) Remedy {
	const key = setting.Timestamps
	return Remedy{
		Title:   "Switch TCP time stamps on",
		Kind:    Setting,
		Now:     at.set(key, "1"),
		Sets:    []Assignment{{key, "1"}},
		Persist: at.persist(key, "1"),
		Frees:   "with tcp_tw_reuse at 1, " + at.reusing(at.budgets.WithReuse()),
		Risk:    setting.Of(key).Risk,
		NotWhen: "a middlebox on the way is known to mangle them",
		Mechanism: "connect() takes over a TIME_WAIT socket of a connection with time stamps alone, and they guard against old " +
			"segments (RFC 7323).",
		Kernels: "all",
	}
}

// leastBuckets is the lowest limit to recommend: 4 MiB when full.
const leastBuckets = int64(1 << 14)

func raiseBuckets(at *site) Remedy {
	const key = setting.MaxTWBuckets
	known := setting.Of(key)
	now, need := at.buckets()
	to := leastBuckets
	for to < math.MaxInt32 && to/2 < max(now, need) {
		to *= 2
	}
	to = min(to, math.MaxInt32) // the sysctl is an int
	value := strconv.FormatInt(to, 10)
	return Remedy{
		Title:   "Raise the limit of time-wait sockets to " + figure.Count(to),
		Kind:    Setting,
		Now:     at.set(key, value),
		Sets:    []Assignment{{key, value}},
		Persist: at.persist(key, value),
		Frees:   fmt.Sprintf("room for %s time-wait sockets more", figure.Count(to-now)),
		Risk: fmt.Sprintf("up to %s more kernel memory when full, twice that for outgoing connections; longer hash chains",
			figure.Size(capacity.AcceptorBytes(int(to-now)))),
		NotWhen:   "memory is short",
		Mechanism: known.Mechanism(),
		Kernels:   "for each namespace from " + known.Own.String() + ", for the whole host before",
	}
}

// buckets is the limit of time-wait sockets, and how many there are or will be.
func (at *site) buckets() (limit, need int64) {
	const key = setting.MaxTWBuckets
	limit, _ = at.host.Settings.Int(key)
	if at.ns == nil { // kernels through 4.10 limit all namespaces together
		for i := range at.all {
			need += at.timeWait(&at.all[i])
		}
		return limit, need
	}
	if own, ok := at.ns.Settings.Int(key); ok {
		limit = own
	}
	return limit, max(at.timeWait(at.ns), int64(at.closes()*capacity.TimeWaitSeconds))
}

// timeWait is how many time-wait sockets a namespace has, or would have after a
// minute at the rate of this window if none were dropped.
func (at *site) timeWait(ns *snapshot.Namespace) int64 {
	n := int64(ns.States.TimeWaitSockets())
	if ns.Sockstat != nil {
		n = max(n, ns.Sockstat.TimeWait)
	}
	made, _ := ns.Counters.Rose("TcpExtTW")
	dropped, _ := ns.Counters.Rose("TcpExtTCPTimeWaitOverflow")
	if at.window > 0 {
		n = max(n, int64(float64(made+dropped)/at.window*capacity.TimeWaitSeconds))
	}
	return n
}

func finTimeoutDefault(at *site) Remedy {
	const key = setting.FinTimeout
	value := setting.Of(key).Default().Value
	r := Remedy{
		Title:     "Put tcp_fin_timeout back at its default",
		Kind:      Setting,
		Frees:     "nothing: it restores the minute that peers have to close their side",
		Risk:      "orphans in FIN_WAIT2 may stay for up to 60 s, as by default",
		NotWhen:   "it was set with FIN_WAIT2 in mind, by someone who knows that TIME_WAIT does not read it",
		Mechanism: "It limits how long a socket without an owner waits for its peer's FIN; TIME_WAIT has a constant of its own.",
		Kernels:   "all; for each namespace from 4.9 or earlier",
	}
	set := false
	for _, b := range at.host.Boot {
		set = set || b.Key == key
	}
	if at.ns != nil {
		r.Now, r.Sets = at.set(key, value), []Assignment{{key, value}}
		if own := at.ns.Label.Kind; own != snapshot.LabelHost {
			r.Change = "Nothing needs to keep it: a new namespace starts with 60. Take out what sets another value."
			return r
		}
	}
	if set {
		r.Persist = at.persist(key, value)
	} else {
		r.Change = "No file of sysctl.d sets it: look for the program or script that does."
	}
	return r
}

// leastSomaxconn is the default of kernels from 5.4 on.
const leastSomaxconn = 4096

func raiseSomaxconn(at *site) Remedy {
	const key = setting.Somaxconn
	known := setting.Of(key)
	var now int64
	if at.ns != nil {
		now, _ = at.ns.Settings.Int(key)
	}
	to := int64(leastSomaxconn)
	for to <= now && to < 1<<20 {
		to *= 2
	}
	value := strconv.FormatInt(to, 10)
	return Remedy{
		Title:     "Raise the ceiling of the accept queue to " + figure.Count(to) + ", and restart the program",
		Kind:      Setting,
		Now:       at.set(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   at.persist(key, value),
		Change:    "Then restart " + orProgram(at.owner()) + ", or make it listen again: listen() reads the ceiling once.",
		Frees:     fmt.Sprintf("queues of up to %s connections where a program asks for them; %s now", figure.Count(to), figure.Count(now)),
		Risk:      known.Risk,
		NotWhen:   "the program asks listen() for less than the present value: then it is the program that must change",
		Mechanism: sourced(known),
		Kernels:   "all, for each namespace; the default is " + somaxconnDefaults(),
	}
}

// somaxconnDefaults are those of newer and older kernels.
func somaxconnDefaults() string {
	known := setting.Of(setting.Somaxconn)
	return fmt.Sprintf("%s from %s, %s before", known.Default().Value, known.Default().From, known.Defaults[0].Value)
}

func fewerOrphanRetries(at *site) Remedy {
	const key, value = setting.OrphanRetries, "3"
	known := setting.Of(key)
	return Remedy{
		Title:     "Give closed connections up sooner",
		Kind:      Setting,
		Now:       at.set(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   at.persist(key, value),
		Frees:     "sockets of dead peers after a few seconds, in place of one minute and a half or more",
		Risk:      known.Risk,
		NotWhen:   "peers are on bad networks, or the last data of a connection matters",
		Mechanism: known.Mechanism(),
		Kernels:   known.Kernels,
	}
}

func raiseMaxOrphans(at *site) Remedy {
	const key = setting.MaxOrphans
	known := setting.Of(key)
	now, _ := at.host.Settings.Int(key)
	to := min(max(2*now, 1<<14), math.MaxInt32)
	value := strconv.FormatInt(to, 10)
	r := Remedy{
		Title:     "Raise the limit of orphans to " + figure.Count(to),
		Kind:      Setting,
		Now:       "sysctl -w " + assigned(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   &Persist{File: HandFile, Line: key + " = " + value},
		Frees:     fmt.Sprintf("room for %s orphans more, on the whole host", figure.Count(to-now)),
		Risk:      known.Risk,
		NotWhen:   "tcp_mem is near as well: then memory ends before the limit",
		Mechanism: known.Mechanism(),
		Kernels:   known.Kernels,
	}
	return r
}

func recycleOff(at *site) Remedy {
	const key = setting.TWRecycle
	known := setting.Of(key)
	value := known.Default().Value
	r := Remedy{
		Title:     "Take tcp_tw_recycle out",
		Kind:      Setting,
		Frees:     "nothing, and drops no more SYNs",
		Risk:      "TIME_WAIT lasts its 60 s again, as on every other kernel",
		NotWhen:   "never: no host needs it",
		Mechanism: known.Mechanism(),
		Kernels:   known.Kernels,
	}
	for _, b := range at.host.Boot {
		if b.Key == key {
			r.Change = fmt.Sprintf("Delete line %d of %s.", b.Line, b.File)
			break
		}
	}
	if at.ns != nil {
		if _, there := at.ns.Settings[key]; there {
			r.Now, r.Persist = at.set(key, value), at.persist(key, value)
			r.Sets = []Assignment{{key, value}}
		}
	}
	if r.Now == "" && r.Change == "" {
		r.Change = "Delete the line that sets it."
	}
	return r
}
