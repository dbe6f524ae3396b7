package snapshot

import (
	"time"

	"linger/internal/tcp"
)

// Traced is what became of connections while the kernel followed them: counts of what it
// saw, not of what was left of it.
type Traced struct {
	Began time.Time `json:"began"`
	MS    int64     `json:"ms"`
	// Groups are in no order.
	Groups []TracedGroup `json:"groups"`
	// Other are the connections that fitted into no group.
	Other TracedCounts `json:"other"`
	// Past are the sums of groups that were given up for others, when nothing had happened in
	// them for a while. Such a group was in the reading before, with the same sums.
	Past TracedCounts `json:"past"`
	// Missed are events that the kernel did not count, for they interrupted the counting of
	// another on the same CPU; nil where it does not tell (before kernel 5.12). What follows in
	// a connection's life makes up for one.
	Missed *uint64 `json:"missed_events"`
}

// TracedGroup are the connections of one program with one service.
type TracedGroup struct {
	TracedKey
	PID       int    `json:"pid,omitempty"`       // of one of its processes
	Container string `json:"container,omitempty"` // its short id
	Pod       string `json:"pod,omitempty"`       // its uid
	Netns     string `json:"netns"`               // the label of the namespace
	TracedCounts
}

// TracedKey is what tells groups from each other.
type TracedKey struct {
	// Process is the name of the leader of the process (/proc/PID/comm), empty where nobody was
	// seen to use the connections.
	Process string   `json:"process"`
	Role    tcp.Role `json:"role"`
	// Local has a port for an acceptor alone; Remote is empty for one.
	Local       tcp.Endpoint `json:"local"`
	Remote      tcp.Endpoint `json:"remote"`
	NetnsCookie uint64       `json:"netns_cookie"` // the inode number before kernel 5.14
	Cgroup      uint64       `json:"cgroup"`       // the inode number of its directory
	// Serial tells a group from an earlier one of the same name that was given up.
	Serial uint64 `json:"-"`
}

// TracedCounts count connections. A connection that was established ends in one of ClosedHere,
// ClosedThere, AbortedHere, ResetThere and TimedOut: by what came first.
type TracedCounts struct {
	Opens       uint64 `json:"opens"` // established
	ClosedHere  uint64 `json:"closed_here"`
	ClosedThere uint64 `json:"closed_there"`
	AbortedHere uint64 `json:"aborted_here"` // dropped by this end without a FIN
	ResetThere  uint64 `json:"reset_there"`
	TimedOut    uint64 `json:"timed_out"`
	// Failed are connect() calls that established nothing, by the reason: no-port, port-taken,
	// refused, unanswered, unreachable, given-up.
	Failed map[string]uint64 `json:"failed"`
	Resets Resets            `json:"resets"`
	// Bound are the opens whose source port was bound before connect().
	Bound uint64 `json:"bound_before_connect"`
	// TimeWait and FinWait2 were handed over to a time-wait socket, after the peer's FIN and
	// before it.
	TimeWait      uint64 `json:"to_time_wait"`
	FinWait2      uint64 `json:"to_fin_wait2"`
	BytesSent     uint64 `json:"bytes_sent"` // acknowledged, of the connections that have ended
	BytesReceived uint64 `json:"bytes_received"`
	// Live are open now, of those whose beginning was seen.
	Live uint64 `json:"live"`
	// Untimed have ended, and their beginning was not seen.
	Untimed uint64 `json:"untimed"`
	// Lives are in microseconds from established to the end, in bins that are a quarter wide. Sent
	// and Received are bytes of a connection, in bins that are as wide as their least.
	Lives    Histogram `json:"-"`
	Sent     Histogram `json:"-"`
	Received Histogram `json:"-"`
}

// Resets are segments with RST.
type Resets struct {
	// Sent is by the kernel's word for the reason (enum sk_rst_reason); unknown before 6.8.
	Sent     map[string]uint64 `json:"sent"`
	Received uint64            `json:"received"`
}

// Ended is how many of the connections that were established have begun to end.
func (c *TracedCounts) Ended() uint64 {
	return c.ClosedHere + c.ClosedThere + c.AbortedHere + c.ResetThere + c.TimedOut
}

// Failures are the connect() calls that failed.
func (c *TracedCounts) Failures() (n uint64) {
	for _, count := range c.Failed {
		n += count
	}
	return n
}

// None tells whether nothing was counted.
func (c *TracedCounts) None() bool {
	return c.Opens+c.Ended()+c.Failures()+c.Resets.Received+c.Untimed+sum(c.Resets.Sent) == 0
}

func sum(counts map[string]uint64) (n uint64) {
	for _, count := range counts {
		n += count
	}
	return n
}

// Add counts the connections of another group too.
func (c *TracedCounts) Add(other *TracedCounts) { c.combine(other, 1) }

// combine adds other times sign, but for Live, which is no sum over time.
func (c *TracedCounts) combine(other *TracedCounts, sign uint64) {
	for _, pair := range [][2]*uint64{
		{&c.Opens, &other.Opens}, {&c.ClosedHere, &other.ClosedHere}, {&c.ClosedThere, &other.ClosedThere},
		{&c.AbortedHere, &other.AbortedHere}, {&c.ResetThere, &other.ResetThere}, {&c.TimedOut, &other.TimedOut},
		{&c.Resets.Received, &other.Resets.Received}, {&c.Bound, &other.Bound},
		{&c.TimeWait, &other.TimeWait}, {&c.FinWait2, &other.FinWait2},
		{&c.BytesSent, &other.BytesSent}, {&c.BytesReceived, &other.BytesReceived}, {&c.Untimed, &other.Untimed},
	} {
		*pair[0] += sign * *pair[1]
	}
	if sign == 1 {
		c.Live += other.Live
	}
	c.Failed = combine(c.Failed, other.Failed, sign)
	c.Resets.Sent = combine(c.Resets.Sent, other.Resets.Sent, sign)
	c.Lives = c.Lives.combine(other.Lives, sign)
	c.Sent = c.Sent.combine(other.Sent, sign)
	c.Received = c.Received.combine(other.Received, sign)
}

func combine(counts, other map[string]uint64, sign uint64) map[string]uint64 {
	out := map[string]uint64{}
	for key, n := range counts {
		out[key] += n
	}
	for key, n := range other {
		out[key] += sign * n
	}
	for key, n := range out {
		if n == 0 {
			delete(out, key)
		}
	}
	return out
}

// Since is what was counted after an earlier reading of the same trace.
func (t *Traced) Since(earlier *Traced) *Traced {
	out := &Traced{Began: earlier.Began.Add(time.Duration(earlier.MS) * time.Millisecond), MS: t.MS - earlier.MS, Missed: t.Missed}
	if t.Missed != nil && earlier.Missed != nil {
		missed := *t.Missed - *earlier.Missed
		out.Missed = &missed
	}
	before := make(map[TracedKey]*TracedCounts, len(earlier.Groups))
	for i := range earlier.Groups {
		before[earlier.Groups[i].TracedKey] = &earlier.Groups[i].TracedCounts
	}
	for _, g := range t.Groups {
		if old := before[g.TracedKey]; old != nil {
			g.combine(old, ^uint64(0))
		}
		if !g.None() || g.Live > 0 {
			out.Groups = append(out.Groups, g)
		}
	}
	out.Other = t.Other
	out.Other.combine(&earlier.Other, ^uint64(0))
	return out
}

// Total is the sum over all groups.
func (t *Traced) Total() (total TracedCounts) {
	for i := range t.Groups {
		total.Add(&t.Groups[i].TracedCounts)
	}
	total.Add(&t.Other)
	total.Add(&t.Past)
	return total
}

// Spreads are how the connections that have ended differ from each other.
type Spreads struct {
	LifeMS Spread `json:"life_ms"`
	// Of one connection each, in bytes.
	SentEach     Spread `json:"bytes_sent_each"`
	ReceivedEach Spread `json:"bytes_received_each"`
}

// Spread reads the histograms.
func (c *TracedCounts) Spread() Spreads {
	return Spreads{c.Lives.spread(1000), c.Sent.spread(1), c.Received.spread(1)}
}

// TracedSums are counts with what is told of single connections.
type TracedSums struct {
	TracedCounts
	Spreads
}

// Sums adds the spreads.
func (c TracedCounts) Sums() *TracedSums { return &TracedSums{c, c.Spread()} }

// EndedConnection is one end of a connection that has ended, as it was seen while the kernel
// followed it.
type EndedConnection struct {
	Ended         time.Time    `json:"ended"`
	Process       string       `json:"process"`
	PID           int          `json:"pid,omitempty"`
	Container     string       `json:"container,omitempty"`
	Pod           string       `json:"pod,omitempty"`
	Netns         string       `json:"netns"`
	Role          tcp.Role     `json:"role"`
	Local         tcp.Endpoint `json:"local"`
	Remote        tcp.Endpoint `json:"remote"`
	Ending        string       `json:"ending"`
	Reason        string       `json:"reason,omitempty"` // of a reset that this end sent
	LifeMS        *float64     `json:"life_ms"`          // nil where the beginning was not seen
	BytesSent     uint64       `json:"bytes_sent"`
	BytesReceived uint64       `json:"bytes_received"`
	// Weight is how many ends this one stands for.
	Weight uint32 `json:"weight"`
}
