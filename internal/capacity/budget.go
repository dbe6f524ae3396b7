package capacity

import (
	"math"
	"slices"
	"time"
)

// Reuse says whether connect() may take over a TIME_WAIT socket, and from what
// age on.
type Reuse struct {
	Allowed bool
	Delay   time.Duration
}

// lifetime is for how many seconds a TIME_WAIT socket holds its port. The kernel
// takes no delay below a millisecond.
func (r Reuse) lifetime() float64 {
	if !r.Allowed {
		return TimeWaitSeconds
	}
	return min(max(r.Delay, time.Millisecond).Seconds(), TimeWaitSeconds)
}

// Exact is what is known of TIME_WAIT sockets one by one, where it is known.
type Exact struct {
	// Ripe are those that connect() may take over now, if tcp_tw_reuse lets it.
	Ripe int
	// Kept is the history of those that connect() never takes over, since bind() owns
	// their port or they have no time stamps.
	Kept History
}

// Demand is what holds the ports of one connector: sockets whose source port lies
// in the range.
type Demand struct {
	// Live are connections, FinWait2 time-wait sockets in FIN_WAIT2: both stay.
	Live, FinWait2 int
	// TimeWait are time-wait sockets in TIME_WAIT, Closes their history.
	TimeWait int
	Closes   History
	Reuse    Reuse
	// Exact is nil where only the ages are known: then all that are old enough are
	// taken to be free.
	Exact *Exact
}

// flow is closes that hold their ports equally long.
type flow struct {
	closes History
	hold   float64 // seconds
}

// flows are the closes of a demand, those first that connect() may take over.
func (d Demand) flows() []flow {
	hold := d.Reuse.lifetime()
	if d.Exact == nil || hold == TimeWaitSeconds {
		return []flow{{d.Closes, hold}}
	}
	return []flow{{d.Closes.less(d.Exact.Kept), hold}, {d.Exact.Kept, TimeWaitSeconds}}
}

// Budget is the account of the source ports of one connector: of one source
// address, destination address and destination port.
type Budget struct {
	// Ports is how many connect() can choose from.
	Ports int `json:"ports"`
	// Live connections, and time-wait sockets in TIME_WAIT and in FIN_WAIT2.
	Live     int `json:"live"`
	TimeWait int `json:"time_wait"`
	FinWait2 int `json:"fin_wait2_time_wait"`
	// Reusable are those in TIME_WAIT that connect() may take over now.
	Reusable int `json:"reusable"`
	// Exact: Reusable was told of each socket; else it is estimated by their ages.
	Exact bool `json:"exact"`
	// Used is Live, FinWait2 and the TIME_WAIT that is not reusable.
	Used int `json:"used"`
	// Now is the closes per second now, Rate those of the forecast, and Sustainable
	// what the ports can carry.
	Now         float64 `json:"-"`
	Rate        float64 `json:"closes_per_second"`
	Sustainable float64 `json:"sustainable_closes_per_second"`
	// HoldSeconds is for how long a close holds its port, in the mean.
	HoldSeconds float64 `json:"hold_seconds"`
	// Predicted is what Used settles at when Rate goes on.
	Predicted        float64 `json:"predicted"`
	UsedPercent      float64 `json:"used_percent"`
	PredictedPercent float64 `json:"predicted_percent"`
	// SecondsLeft until no port is free: nil for never at Rate, else as Now goes on.
	SecondsLeft *float64 `json:"seconds_left"`
}

// NewBudget accounts for a demand on so many ports. The percentages of a budget
// without ports are 100 where anything uses it, and 0 otherwise.
func NewBudget(ports int, d Demand) Budget {
	flows := d.flows()
	fixed := d.Live + d.FinWait2
	b := Budget{
		Ports:       ports,
		Live:        d.Live,
		TimeWait:    d.TimeWait,
		FinWait2:    d.FinWait2,
		Reusable:    d.reusable(),
		Exact:       d.Exact != nil,
		HoldSeconds: flows[0].hold,
	}
	rates, now, settled := make([]float64, len(flows)), make([]float64, len(flows)), 0.0
	for i, f := range flows {
		rates[i], now[i] = f.closes.Rate(f.hold), f.closes.Now(f.hold)
		b.Rate += rates[i]
		b.Now += now[i]
		settled += rates[i] * f.hold
	}
	if len(flows) > 1 && b.Rate > 0 {
		b.HoldSeconds = settled / b.Rate
	}
	b.Sustainable = SustainableRate(ports, fixed, time.Duration(b.HoldSeconds*float64(time.Second)))
	b.Predicted = float64(fixed) + settled
	b.Used = fixed + d.TimeWait - b.Reusable
	b.UsedPercent = percent(float64(b.Used), ports)
	b.PredictedPercent = percent(b.Predicted, ports)
	if b.SecondsLeft = timeLeft(ports, b.Used, fixed, flows, rates); b.SecondsLeft != nil {
		b.SecondsLeft = timeLeft(ports, b.Used, fixed, flows, now)
	}
	return b
}

// Fill is the larger of the used and the predicted percentage.
func (b Budget) Fill() float64 { return max(b.UsedPercent, b.PredictedPercent) }

// Occupied is the number of TIME_WAIT sockets that hold a port now.
func (b Budget) Occupied() int { return b.TimeWait - b.Reusable }

// reusable counts what is old enough, and rounds down: a port that may not be
// free is not.
func (d Demand) reusable() int {
	if !d.Reuse.Allowed {
		return 0
	}
	if d.Exact != nil {
		return min(d.Exact.Ripe, d.TimeWait)
	}
	old := d.Closes.Past
	for i, c := range d.Closes.PerSecond {
		old += c * (1 - heldShare(d.Reuse.lifetime(), 0, i))
	}
	// A sum of scaled shares may miss a whole number by a rounding error.
	return min(int(math.Floor(old+1e-6)), d.TimeWait)
}

// heldShare is which share of bucket i still holds its ports in t seconds.
func heldShare(hold, t float64, i int) float64 {
	return min(max(hold-t-float64(i), 0), 1)
}

// timeLeft is the first moment at which no port is free, nil for never. The used
// ports are given as they were counted: those past their time count now, but are
// about to leave and so do not count in the forecast.
func timeLeft(ports, used, fixed int, flows []flow, rates []float64) *float64 {
	if used >= ports {
		now := 0.0
		return &now
	}
	at := func(t float64) float64 {
		sum := float64(fixed)
		for k, f := range flows {
			sum += rates[k] * min(t, f.hold)
			for i, c := range f.closes.PerSecond {
				sum += c * heldShare(f.hold, t, i)
			}
		}
		return sum
	}
	limit := float64(ports)
	t0, u0 := 0.0, at(0)
	coming := 0.0
	for k, f := range flows {
		coming += rates[k] * f.hold
	}
	if u0+coming < limit { // most budgets: nothing that could come fills them
		return nil
	}
	for _, t1 := range turns(flows) {
		u1 := at(t1)
		if u1 >= limit {
			t := t0
			if u0 < limit {
				t += (t1 - t0) * (limit - u0) / (u1 - u0)
			}
			return &t
		}
		t0, u0 = t1, u1
	}
	return nil
}

// turns are the moments at which the slope of the occupancy may change.
func turns(flows []flow) []float64 {
	var moments []float64
	for _, f := range flows {
		for t := f.hold; t > 0; t-- {
			moments = append(moments, t)
		}
	}
	slices.Sort(moments)
	return moments
}

func percent(n float64, of int) float64 {
	switch {
	case of > 0:
		return 100 * n / float64(of)
	case n > 0:
		return 100
	default:
		return 0
	}
}
