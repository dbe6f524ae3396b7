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

// Demand is what holds the ports of one connector: sockets whose source port lies
// in the range.
type Demand struct {
	// Live are connections, FinWait2 time-wait sockets in FIN_WAIT2: both stay.
	Live, FinWait2 int
	// TimeWait are time-wait sockets in TIME_WAIT, Closes their history.
	TimeWait int
	Closes   History
	Reuse    Reuse
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
	// Used is Live, FinWait2 and the TIME_WAIT that is not reusable.
	Used int `json:"used"`
	// Now is the closes per second now, Rate those of the forecast, and Sustainable
	// what the ports can carry.
	Now         float64 `json:"-"`
	Rate        float64 `json:"closes_per_second"`
	Sustainable float64 `json:"sustainable_closes_per_second"`
	// HoldSeconds is for how long a close holds its port.
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
	hold := d.Reuse.lifetime()
	rate := d.Closes.Rate(hold)
	fixed := d.Live + d.FinWait2
	b := Budget{
		Ports:       ports,
		Live:        d.Live,
		TimeWait:    d.TimeWait,
		FinWait2:    d.FinWait2,
		Reusable:    d.reusable(),
		Now:         d.Closes.Now(hold),
		Rate:        rate,
		HoldSeconds: hold,
		Sustainable: SustainableRate(ports, fixed, time.Duration(hold*float64(time.Second))),
		Predicted:   float64(fixed) + rate*hold,
	}
	b.Used = fixed + d.TimeWait - b.Reusable
	b.UsedPercent = percent(float64(b.Used), ports)
	b.PredictedPercent = percent(b.Predicted, ports)
	if b.SecondsLeft = timeLeft(ports, b.Used, fixed, d.Closes, rate, hold); b.SecondsLeft != nil {
		b.SecondsLeft = timeLeft(ports, b.Used, fixed, d.Closes, b.Now, hold)
	}
	return b
}

// Fill is the larger of the used and the predicted percentage.
func (b Budget) Fill() float64 { return max(b.UsedPercent, b.PredictedPercent) }

// Held is the number of TIME_WAIT sockets that hold a port now.
func (b Budget) Held() int { return b.TimeWait - b.Reusable }

// reusable counts what is old enough, and rounds down: a port that may not be
// free is not.
func (d Demand) reusable() int {
	if !d.Reuse.Allowed {
		return 0
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
func timeLeft(ports, used, fixed int, closes History, rate, hold float64) *float64 {
	if used >= ports {
		now := 0.0
		return &now
	}
	at := func(t float64) float64 {
		sum := float64(fixed) + rate*min(t, hold)
		for i, c := range closes.PerSecond {
			sum += c * heldShare(hold, t, i)
		}
		return sum
	}
	limit := float64(ports)
	t0, u0 := 0.0, at(0)
	if u0+rate*hold < limit { // most budgets: nothing that could come fills them
		return nil
	}
	for _, t1 := range turns(hold) {
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
func turns(hold float64) []float64 {
	var moments []float64
	for t := hold; t > 0; t-- {
		moments = append(moments, t)
	}
	slices.Reverse(moments)
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
