package capacity

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"linger/internal/tcp"
)

func TestPortsCountsNoPortTwice(t *testing.T) {
	r := tcp.PortRange{Low: 32768, High: 60999}
	for _, tt := range []struct {
		name  string
		taken []tcp.PortSet
		want  int
	}{
		{"nothing taken", nil, 28232},
		{"reserved and listening overlap", []tcp.PortSet{{{Low: 40000, High: 40009}}, tcp.PortSetOf(40005, 40010)}, 28221},
		{"outside of the range", []tcp.PortSet{tcp.PortSetOf(80, 443, 61000)}, 28232},
		{"all reserved", []tcp.PortSet{{{Low: 1, High: 65535}}, tcp.PortSetOf(40000)}, 0},
	} {
		if got := Ports(r, tt.taken...); got != tt.want {
			t.Errorf("%s: Ports = %d, want %d", tt.name, got, tt.want)
		}
	}
}

// steady is a history of so many closes in each of the latest seconds.
func steady(perSecond float64, seconds int) History {
	var h History
	for i := range seconds {
		h.PerSecond[i] = perSecond
	}
	return h
}

func TestRate(t *testing.T) {
	quietNow := steady(100, 60)
	for i := range RecentSeconds {
		quietNow.PerSecond[i] = 0
	}
	for _, tt := range []struct {
		name string
		h    History
		hold float64
		want float64
	}{
		{"steady", steady(100, 60), 60, 100},
		{"began 20 s ago", steady(100, 20), 60, 100},
		{"a burst of 5 s counts as a quarter", steady(100, 5), 60, 25},
		{"has stopped", quietNow, 60, 0},
		{"nothing", History{}, 60, 0},
		{"taken over after a second: only that second tells", steady(100, 1), 1, 100},
		{"taken over after half a second", steady(100, 1), 0.5, 100},
	} {
		if got := tt.h.Rate(tt.hold); got != tt.want {
			t.Errorf("%s: Rate = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestBegan(t *testing.T) {
	onset := steady(500, 12)
	onset.PerSecond[50] = 1 // a trickle before it
	stopped := steady(10, 60)
	copy(stopped.PerSecond[:30], make([]float64, 30))
	for _, tt := range []struct {
		name    string
		h       History
		seconds int
		known   bool
		stopped int
	}{
		{"onset", onset, 12, true, 0},
		{"since a minute or longer", steady(5, 60), 0, false, 0},
		{"stopped half a minute ago", stopped, 0, false, 30},
		{"never", History{}, 0, false, 60},
	} {
		seconds, known := tt.h.Began()
		if seconds != tt.seconds || known != tt.known || tt.h.Stopped() != tt.stopped {
			t.Errorf("%s: Began = %d, %t, Stopped = %d; want %d, %t, %d",
				tt.name, seconds, known, tt.h.Stopped(), tt.seconds, tt.known, tt.stopped)
		}
	}
}

func TestBudget(t *testing.T) {
	left := func(s float64) *float64 { return &s }
	for _, tt := range []struct {
		name  string
		ports int
		d     Demand
		want  Budget
	}{
		{
			"steady, never runs out", 28232,
			Demand{Live: 32, TimeWait: 6000, Closes: steady(100, 60)},
			Budget{
				Ports: 28232, Live: 32, TimeWait: 6000, Used: 6032, Now: 100, Rate: 100, Sustainable: 470, HoldSeconds: 60,
				Predicted: 6032, UsedPercent: 100 * 6032.0 / 28232, PredictedPercent: 100 * 6032.0 / 28232,
			},
		},
		{
			"an onset 20 s ago runs out in 40 s", 6000,
			Demand{TimeWait: 2000, Closes: steady(100, 20)},
			Budget{
				Ports: 6000, TimeWait: 2000, Used: 2000, Now: 100, Rate: 100, Sustainable: 100, HoldSeconds: 60, Predicted: 6000,
				UsedPercent: 100 * 2000.0 / 6000, PredictedPercent: 100, SecondsLeft: left(40),
			},
		},
		{
			// The forecast trusts half of the rate; the time left is that of all of it.
			"an onset 10 s ago runs out in 20 s", 3000,
			Demand{TimeWait: 1000, Closes: steady(100, 10)},
			Budget{
				Ports: 3000, TimeWait: 1000, Used: 1000, Now: 100, Rate: 50, Sustainable: 50, HoldSeconds: 60, Predicted: 3000,
				UsedPercent: 100 * 1000.0 / 3000, PredictedPercent: 100, SecondsLeft: left(20),
			},
		},
		{
			"taken over after a second", 1000,
			Demand{Live: 10, FinWait2: 5, TimeWait: 400, Closes: steady(100, 4), Reuse: Reuse{Allowed: true, Delay: time.Second}},
			Budget{
				Ports: 1000, Live: 10, TimeWait: 400, FinWait2: 5, Reusable: 300, Used: 115, Now: 100, Rate: 100, Sustainable: 985,
				HoldSeconds: 1, Predicted: 115, UsedPercent: 11.5, PredictedPercent: 11.5,
			},
		},
		{
			// 25 of 100 closes a second are bound, or lack time stamps.
			"a quarter is never taken over", 2000,
			Demand{
				Live: 10, TimeWait: 400, Closes: steady(100, 4), Reuse: Reuse{Allowed: true, Delay: time.Second},
				Exact: &Exact{Ripe: 225, Kept: steady(25, 4)},
			},
			Budget{
				Ports: 2000, Live: 10, TimeWait: 400, Reusable: 225, Exact: true, Used: 185, Now: 125 - 25 - 25 + 12.5 + 12.5, Rate: 80,
				HoldSeconds: 4.6875, Sustainable: 1990 / 4.6875, Predicted: 385, UsedPercent: 9.25, PredictedPercent: 19.25,
			},
		},
		{
			"none is taken over, whatever could be", 1000,
			Demand{TimeWait: 400, Closes: steady(100, 4), Exact: &Exact{Ripe: 300}},
			Budget{
				Ports: 1000, TimeWait: 400, Exact: true, Used: 400, Now: 100, Rate: 20, HoldSeconds: 60, Sustainable: 1000.0 / 60,
				Predicted: 1200, UsedPercent: 40, PredictedPercent: 120, SecondsLeft: left(6),
			},
		},
		{
			"used up by live connections", 100,
			Demand{Live: 100},
			Budget{
				Ports: 100, Live: 100, Used: 100, HoldSeconds: 60, Predicted: 100, UsedPercent: 100, PredictedPercent: 100,
				SecondsLeft: left(0),
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, NewBudget(tt.ports, tt.d)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func perSecondOf(h History) (counts [TimeWaitSeconds]uint32) {
	for i, c := range h.PerSecond {
		counts[i] = uint32(c)
	}
	return counts
}

// drawDemand draws a demand whose TIME_WAIT sockets are those of its history.
func drawDemand(t *rapid.T) Demand {
	var counts [TimeWaitSeconds]uint32
	sum := 0
	for i := range counts {
		counts[i] = rapid.Uint32Range(0, 800).Draw(t, "closes")
		sum += int(counts[i])
	}
	past := rapid.Uint32Range(0, 500).Draw(t, "past")
	sum += int(past)
	return Demand{
		Live:     rapid.IntRange(0, 20000).Draw(t, "live"),
		FinWait2: rapid.IntRange(0, 500).Draw(t, "fin wait 2"),
		TimeWait: sum,
		Closes:   HistoryOf(counts, past, sum),
		Reuse: Reuse{
			Allowed: rapid.Bool().Draw(t, "reuse"),
			Delay:   time.Duration(rapid.IntRange(1, 60000).Draw(t, "delay")) * time.Millisecond,
		},
	}
}

func TestBudgetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDemand(t)
		ports := rapid.IntRange(0, 64512).Draw(t, "ports")
		b := NewBudget(ports, d)

		if sockets := d.Live + d.FinWait2 + d.TimeWait; b.Used < d.Live || b.Used > sockets {
			t.Fatalf("used %d is not between the %d live and all %d sockets", b.Used, d.Live, sockets)
		}
		if left := b.SecondsLeft; left != nil && (*left < 0 || *left > b.HoldSeconds || *left > TimeWaitSeconds) {
			t.Fatalf("runs out in %v s, but a port is held for %v s", *left, b.HoldSeconds)
		}
		// The forecast is never more than three times what is already there.
		if inTimeWait := float64(d.TimeWait); b.Predicted-float64(d.Live+d.FinWait2) > inTimeWait*TimeWaitSeconds/SustainedSeconds+1e-6 {
			t.Fatalf("predicted %v of %v in TIME_WAIT", b.Predicted, inTimeWait)
		}
		if more := NewBudget(ports+1, d); more.SecondsLeft != nil && (b.SecondsLeft == nil || *b.SecondsLeft > *more.SecondsLeft+1e-9) {
			t.Fatalf("one more port shortens the time left: %v to %v", b.SecondsLeft, *more.SecondsLeft)
		}
		exact := d
		exact.Exact = &Exact{Ripe: rapid.IntRange(0, d.TimeWait).Draw(t, "ripe"), Kept: HistoryOf(perSecondOf(d.Closes), 0, d.TimeWait/3)}
		e := NewBudget(ports, exact)
		if e.Used < d.Live || e.Used > d.Live+d.FinWait2+d.TimeWait || e.Reusable > d.TimeWait {
			t.Fatalf("used %d, reusable %d of %d", e.Used, e.Reusable, d.TimeWait)
		}
		if e.Predicted < b.Predicted-1e-6 || e.HoldSeconds < b.HoldSeconds-1e-9 || e.HoldSeconds > TimeWaitSeconds+1e-9 {
			t.Fatalf("what is never taken over frees ports: %v after %v, held for %v s after %v s",
				e.Predicted, b.Predicted, e.HoldSeconds, b.HoldSeconds)
		}
		if left := e.SecondsLeft; left != nil && (*left < 0 || *left > TimeWaitSeconds) {
			t.Fatalf("runs out in %v s", *left)
		}
		without := d
		without.Reuse.Allowed = false
		if NewBudget(ports, without).Used < b.Used {
			t.Fatal("reuse takes ports")
		}
	})
}

func TestMoreClosesNeverGiveMoreTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDemand(t)
		ports := rapid.IntRange(1, 64512).Draw(t, "ports")
		slow := rapid.Float64Range(0, 2000).Draw(t, "rate")
		fast := slow + rapid.Float64Range(0, 2000).Draw(t, "more")
		fixed := d.Live + d.FinWait2
		a, b := timeLeft(ports, fixed, fixed, d.flows(), []float64{slow}), timeLeft(ports, fixed, fixed, d.flows(), []float64{fast})
		if a != nil && (b == nil || *b > *a+1e-9) {
			t.Fatalf("%v closes/s leave %v, %v leave %v", slow, *a, fast, b)
		}
	})
}

func TestReservedPortsNeverAddPorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Uint16Range(1, 60000).Draw(t, "low")
		r := tcp.PortRange{Low: low, High: rapid.Uint16Range(low, 65535).Draw(t, "high")}
		taken := tcp.PortSetOf(rapid.SliceOf(rapid.Uint16()).Draw(t, "taken")...)
		more := tcp.PortSetOf(rapid.SliceOf(rapid.Uint16()).Draw(t, "more")...)
		before, after := Ports(r, taken), Ports(r, taken, more)
		if after > before || after < 0 || before-after > more.Within(r) {
			t.Fatalf("%d ports become %d", before, after)
		}
	})
}

// TestTimeLeftAgreesWithSimulation counts every socket of a demand one by one, in
// steps of a hundredth of a second, as the kernel would: each leaves at its own
// time, and each arrival takes a port and gives it back.
func TestTimeLeftAgreesWithSimulation(t *testing.T) {
	const step = 0.01
	rapid.Check(t, func(t *rapid.T) {
		d := drawDemand(t)
		d.Closes.Past, d.Live = 0, rapid.IntRange(0, 500).Draw(t, "few live")
		rate := rapid.Float64Range(0, 1500).Draw(t, "rate")
		ports := rapid.IntRange(1000, 64512).Draw(t, "ports")
		hold := d.Reuse.lifetime()
		fixed := d.Live + d.FinWait2

		var leaves []float64 // when each survivor gives its port back
		for i, n := range d.Closes.PerSecond {
			for k := range int(n) {
				if at := hold - float64(i) - (float64(k)+0.5)/n; at > 0 {
					leaves = append(leaves, at)
				}
			}
		}
		if fixed+len(leaves) >= ports {
			t.Skip("used up before it begins")
		}
		back := make([]int, int(hold/step)+2)
		for _, at := range leaves {
			back[int(at/step)+1]++
		}
		simulated := math.Inf(1)
		used := fixed + len(leaves)
		for k := 1; float64(k)*step <= hold; k++ {
			used -= back[k]
			if now := float64(k) * step; float64(used)+rate*now >= float64(ports) {
				simulated = now
				break
			}
		}

		got := math.Inf(1)
		if left := timeLeft(ports, fixed, fixed, d.flows(), []float64{rate}); left != nil {
			got = *left
		}
		// Sockets are whole in the simulation: where the two curves run side by
		// side, one socket is many steps. So ask the occupancy, not the clock.
		at := func(when float64) float64 {
			sum := float64(fixed) + rate*min(when, hold)
			for i, c := range d.Closes.PerSecond {
				sum += c * heldShare(hold, when, i)
			}
			return sum
		}
		tolerance := (rate+800)*step + 2 // what comes and goes in one step
		when := min(got, simulated)
		if got == simulated || math.Abs(at(when)-float64(ports)) <= tolerance {
			return
		}
		t.Fatalf("time left %v, simulated %v, occupancy then %v of %d", got, simulated, at(when), ports)
	})
}

func TestSustainableRate(t *testing.T) {
	if got := SustainableRate(28232, 0, time.Minute); math.Round(got) != 471 {
		t.Errorf("28,232 ports carry %v closes/s, want 471", got)
	}
	if got := SustainableRate(10, 10, time.Minute); got != 0 {
		t.Errorf("no port carries %v closes/s", got)
	}
}

func TestMemory(t *testing.T) {
	// 100,000 sockets: 26 MB on a server, 51 MB on a client.
	if a, c := AcceptorBytes(100_000), ConnectorBytes(100_000); a != 25_600_000 || c != 51_200_000 {
		t.Errorf("100,000 sockets take %d and %d bytes", a, c)
	}
}
