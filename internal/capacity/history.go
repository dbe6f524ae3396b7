package capacity

// History counts TIME_WAIT sockets by when they entered the state.
type History struct {
	// PerSecond[i] entered between i and i+1 seconds ago.
	PerSecond [TimeWaitSeconds]float64
	// Past are past their time and leave at the next step of the timer wheel.
	Past float64
}

// HistoryOf scales counted sockets to those n of them that matter, such as those
// whose source port lies in the range: they are taken to have the same ages.
func HistoryOf(perSecond [TimeWaitSeconds]uint32, past uint32, n int) History {
	var h History
	sum := float64(past)
	for _, c := range perSecond {
		sum += float64(c)
	}
	if sum == 0 {
		return h
	}
	share := float64(n) / sum
	for i, c := range perSecond {
		h.PerSecond[i] = float64(c) * share
	}
	h.Past = float64(past) * share
	return h
}

// less is what is left of a history without those of another, which may have been
// counted a moment later.
func (h History) less(other History) History {
	for i, c := range other.PerSecond {
		h.PerSecond[i] = max(0, h.PerSecond[i]-c)
	}
	h.Past = max(0, h.Past-other.Past)
	return h
}

// LastMinute is the mean rate of closes over the last minute, per second.
func (h History) LastMinute() float64 { return h.mean(TimeWaitSeconds) }

// Now is the rate of closes now, per second, where each holds its port for so many
// seconds.
func (h History) Now(lifetimeSeconds float64) float64 {
	return h.mean(min(RecentSeconds, horizon(lifetimeSeconds)))
}

// Rate is the rate that a forecast goes by: that of now, as far as it has lasted.
func (h History) Rate(lifetimeSeconds float64) float64 {
	return min(h.Now(lifetimeSeconds), h.mean(min(SustainedSeconds, horizon(lifetimeSeconds))))
}

// horizon is how many of the latest seconds tell about sockets that hold their
// ports for so long.
func horizon(lifetimeSeconds float64) int {
	seconds := 1
	for seconds < TimeWaitSeconds && float64(seconds) < lifetimeSeconds {
		seconds++
	}
	return seconds
}

// mean is the mean rate over the latest seconds.
func (h History) mean(seconds int) float64 {
	sum := 0.0
	for _, c := range h.PerSecond[:seconds] {
		sum += c
	}
	return sum / float64(seconds)
}

// background is the share of all closes that may precede the beginning: a quiet
// trickle before an onset is not the onset.
const background = 0.02

// Began is how many seconds ago the closes began. It is not known (false) where
// there are none, or where they reach back to the edge of the history: then they
// began a minute ago at least.
func (h History) Began() (seconds int, known bool) {
	sum := h.Past
	for _, c := range h.PerSecond {
		sum += c
	}
	older := h.Past
	for i := TimeWaitSeconds - 1; i >= 0; i-- {
		older += h.PerSecond[i]
		if older > background*sum {
			if i >= TimeWaitSeconds-2 {
				break
			}
			return i + 1, true
		}
	}
	return 0, false
}

// Stopped is how many seconds ago the last close was, 0 while they go on.
func (h History) Stopped() int {
	for i, c := range h.PerSecond {
		if c > 0 {
			return i
		}
	}
	return TimeWaitSeconds
}
