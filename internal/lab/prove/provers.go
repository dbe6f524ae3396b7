package prove

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"

	"linger/internal/lab"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// holdConnections opens connections that stay, and records how many failed.
func holdConnections(serve stage.ServeSpec, dial stage.DialSpec, prepare func(lab.Scene) error, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, serve, set...)
		if err == nil && prepare != nil {
			err = prepare(s)
		}
		if err != nil {
			return err
		}
		dial := dial // each run its own
		dial.To = []netip.AddrPort{s.Service}
		done, err := s.Client.Hold(ctx, dial)
		if err != nil {
			return err
		}
		t.RecordDialed(done)
		return nil
	}
}

func number(n int) string { return proof.Number(float64(n)) }

// provedRange is how many ports the smaller of two ranges has in the laboratory.
const provedRange = 1000

func proveRange(p Proposal) (lab.Experiment, error) {
	reserved, err := tcp.ParsePortSet(p.Beside[keyReserved])
	if err != nil {
		return lab.Experiment{}, err
	}
	before, errOld := freePorts(p.Old, reserved)
	after, errNew := freePorts(p.New, reserved)
	if err := errors.Join(errOld, errNew); err != nil {
		return lab.Experiment{}, err
	}
	old, new, scaled := scale(before, after, provedRange)
	if old == new {
		return lab.Experiment{}, fmt.Errorf("both ranges leave %d ports", before)
	}
	ports := map[string]int{p.Old: old, p.New: new}
	connects := min(old, new) + min(max(old, new)-min(old, new), provedRange)
	return p.compare(lab.Experiment{
		Problem:  "port-exhaustion",
		Question: "How many connects to one service find no source port?",
		Setup: fmt.Sprintf("%s source ports and %s, without the reserved ones%s; %s connections to one service, kept open",
			number(before), number(after), scaled, number(connects)),
		Load: lab.Works, Quantities: []proof.Quantity{lab.Failures, lab.Succeeded},
	}, 3, func(value string) lab.Measure {
		narrow := func(s lab.Scene) error { return s.ClientNode.NarrowRange(ports[value]) }
		return holdConnections(stage.ServeSpec{Close: stage.CloseSecond}, stage.DialSpec{Count: connects}, narrow,
			p.sysctls(lab.AtClient, value, keyRange, keyReserved)...)
	})
}

// proveReserved has a client take every source port around one that is reserved, and
// counts the reserved ones that it got.
func proveReserved(p Proposal) (lab.Experiment, error) {
	old, errOld := tcp.ParsePortSet(p.Old)
	new, errNew := tcp.ParsePortSet(p.New)
	if err := errors.Join(errOld, errNew); err != nil {
		return lab.Experiment{}, err
	}
	reserved := func(port uint16) bool { return new.Contains(port) && !old.Contains(port) }
	first := 1024
	for first <= math.MaxUint16 && !reserved(uint16(first)) {
		first++
	}
	if first > math.MaxUint16 {
		return lab.Experiment{}, errors.New("it reserves no port that was not reserved")
	}
	around := tcp.PortRange{Low: uint16(max(1024, first-50)), High: uint16(min(math.MaxUint16, first+49))}
	return p.compare(lab.Experiment{
		Problem:  "port-exhaustion",
		Question: "Does connect() take a port that a service needs?",
		Setup:    fmt.Sprintf("source ports %s, and connects until there is no more", around),
		Load:     lab.Works,
		Quantities: []proof.Quantity{{Name: "taken", Title: "ports taken that the plan reserves", Unit: "ports",
			Better: proof.Less}, lab.Succeeded},
	}, 2, func(value string) lab.Measure {
		set := append(p.sysctls(lab.AtClient, value, keyRange),
			lab.AtClient(keyRange, fmt.Sprintf("%d %d", around.Low, around.High)))
		return takeAll(around.Size(), reserved, set...)
	})
}

// takeAll connects until a client's range of so many ports is taken, and counts those
// that are reserved.
func takeAll(ports int, reserved func(port uint16) bool, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, set...)
		if err != nil {
			return err
		}
		done, err := s.Client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: ports + 1})
		if err != nil {
			return err
		}
		taken := 0
		err = s.ClientNode.Each(ctx, func(socket *tcp.Socket) {
			if reserved(socket.LocalPort) {
				taken++
			}
		}, tcp.Established)
		t.Record("taken", float64(taken))
		t.RecordDialed(done)
		return err
	}
}

// proveTakeOver fills a range with TIME_WAIT and connects again when that is old enough:
// where it is the delay, older than the shorter one and younger than the longer one.
func proveTakeOver(p Proposal) (lab.Experiment, error) {
	wait := cases.AfterDelay
	if p.Key == keyReuseDelay {
		old, new, err := p.numbers()
		if err != nil {
			return lab.Experiment{}, err
		}
		low, high := min(old, new), max(old, new)
		if high < 2*low {
			return lab.Experiment{}, fmt.Errorf("%d and %d ms are too near to each other to be told apart", old, new)
		}
		wait = time.Duration(min((low+high)/2, low+2000)) * time.Millisecond
	}
	return p.compare(lab.Experiment{
		Problem:  "tw-reuse",
		Question: "Do connects take over ports that wait?",
		Setup: fmt.Sprintf("200 source ports, all in TIME_WAIT for %.3g s; then 100 connects to the same service",
			wait.Seconds()),
		Load: lab.Waits,
		Quantities: []proof.Quantity{
			lab.Failures, lab.Succeeded, {Name: "taken_over", Title: "TIME_WAIT taken over (TWRecycled)", Unit: "sockets"},
		},
	}, 3+wait.Seconds(), func(value string) lab.Measure {
		return cases.TakeOver(wait, p.sysctls(lab.AtClient, value, keyRange, keyReserved)...)
	})
}

var lasted = []proof.Quantity{
	{Name: "seconds", Title: "half of them are gone after", Unit: "seconds", Better: proof.Less, Margin: proof.Margin{Absolute: 8}},
	{Name: "last", Title: "the last is gone after", Unit: "seconds"},
}

// proveFinTimeout measures what the plan wants to change: how long TIME_WAIT lasts, for
// a value below the default; how far the time in FIN_WAIT2 is from what the setting says,
// for one that the kernel counts otherwise; else that time itself.
func proveFinTimeout(p Proposal) (lab.Experiment, error) {
	old, new, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	lasts := []int64{setting.OrphanSeconds(int64(old)), setting.OrphanSeconds(int64(new))}
	for _, seconds := range lasts {
		if new >= 60 && seconds > 125 {
			return lab.Experiment{}, fmt.Errorf("an orphan would stay for %d s: longer than a run may take", seconds)
		}
	}
	e := lab.Experiment{Problem: "fin-timeout", Load: lab.Waits, Quantities: lasted}
	if new < 60 {
		e.Question = "Does TIME_WAIT end sooner?"
		e.Setup = "50 connections that the client closes first"
		return p.compare(e, 68, func(value string) lab.Measure {
			return cases.WaitFor(tcp.TimeWait, tcp.TimeWait, stage.CloseSecond, 90*time.Second,
				p.sysctls(lab.AtClient, value)...)
		})
	}
	e.Question = "How long does an orphan in FIN_WAIT2 stay?"
	e.Setup = "50 connections that the client closes and the service never does"
	if old > 60 && old < 120 {
		e.Question = "Does an orphan in FIN_WAIT2 stay for as long as the setting says?"
		e.Quantities = append([]proof.Quantity{
			{Name: "off", Title: "off what the setting says", Unit: "seconds", Better: proof.Less,
				Margin: proof.Margin{Absolute: 8}},
		}, undirected(lasted)...)
	}
	return p.compare(e, float64(slices.Max(lasts))*1.1+2, func(value string) lab.Measure {
		return func(ctx context.Context, t *lab.Trial) error {
			if err := cases.WaitFor(tcp.FinWait2, tcp.FinWait2TimeWait, stage.AcceptNever, 150*time.Second,
				p.sysctls(lab.AtClient, value)...)(ctx, t); err != nil {
				return err
			}
			says, err := strconv.ParseFloat(value, 64)
			t.Record("off", math.Abs(t.Value("seconds")-says))
			return err
		}
	})
}

func undirected(quantities []proof.Quantity) []proof.Quantity {
	quantities = slices.Clone(quantities)
	for i := range quantities {
		quantities[i].Better = ""
	}
	return quantities
}

func proveBuckets(p Proposal) (lab.Experiment, error) {
	before, after, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	const most = 400
	old, new, scaled := scale(before, after, most)
	values := map[string]string{p.Old: strconv.Itoa(old), p.New: strconv.Itoa(new)}
	low, high := min(old, new), max(old, new)
	if low == high {
		return lab.Experiment{}, fmt.Errorf("%d and %d are too near to each other to be told apart", before, after)
	}
	closes := low + min(high-low, most)
	e := cases.TimeWaitOverflowProof
	e.Question = "How many connections lose their TIME_WAIT?"
	e.Setup = fmt.Sprintf("limits of %s and %s%s; %d connections that the service closes first", number(before), number(after), scaled,
		closes)
	e.Load = lab.Works
	return p.compare(e, 2, func(value string) lab.Measure {
		return cases.Overflown(cases.ServerCloses, stage.DialSpec{PeerCloses: true, Count: closes},
			append(p.sysctls(lab.AtServer, "", keyBuckets), cases.Buckets(values[value]))...)
	})
}

func proveSomaxconn(p Proposal) (lab.Experiment, error) {
	old, new, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	const most, more = 5000, 20
	if min(old, new) > most {
		return lab.Experiment{}, fmt.Errorf("%d connections are more than the laboratory queues (%d)", min(old, new), most)
	}
	connects := min(old, new) + 1 + more
	return p.compare(lab.Experiment{
		Problem:  "accept-queue-overflow",
		Question: "How many connections does a listener queue that asks for all it can get?",
		Setup:    fmt.Sprintf("a service that listens with a backlog of 65,535 and accepts nothing; %s connects", number(connects)),
		Load:     lab.Waits, Quantities: []proof.Quantity{lab.Failures, lab.Succeeded},
	}, 5, func(value string) lab.Measure {
		return holdConnections(stage.ServeSpec{Close: stage.AcceptNever, Backlog: math.MaxUint16},
			stage.DialSpec{Count: connects, PatienceMS: 150}, nil, p.sysctls(lab.AtServer, value)...)
	})
}

func proveRFC1337(p Proposal) (lab.Experiment, error) {
	e := cases.SynOnTimeWaitProof
	e.Question = "Do connects succeed that meet the TIME_WAIT of another client?"
	e.Quantities = []proof.Quantity{e.Quantities[1], e.Quantities[2], e.Quantities[3]}
	return p.compare(e, 3, func(value string) lab.Measure {
		return cases.Collided(p.Key+"="+value, cases.CollisionArm{RFC1337: value == "1"})
	})
}

// forgets is after how many idle seconds the firewall of an experiment forgets, whose
// connections are idle for twice as long.
const forgets = 2

// proveKeepalive has the time between two probes at its least: at its usual minute and a
// quarter nothing would be probed twice.
func proveKeepalive(p Proposal) (lab.Experiment, error) {
	old, new, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	before, after, scaled := scale(old, new, 1)
	if max(before, after) < 3*forgets {
		return lab.Experiment{}, fmt.Errorf("%d and %d s are too near to each other to be told apart", old, new)
	}
	values := map[string]int{p.Old: before, p.New: after}
	e := cases.VanishedConnectionsProof
	e.Question = "Do idle connections with SO_KEEPALIVE survive a firewall that forgets?"
	e.Setup = fmt.Sprintf("%s s and %s s%s; 20 connections, idle for 4 s, through a firewall that forgets after %d s", number(old),
		number(new), scaled, forgets)
	return p.compare(e, 7, func(value string) lab.Measure {
		// The kernel waits for tcp_keepalive_intvl after a probe that is answered, too.
		set := append(p.sysctls(lab.AtClient, "", keyKeepalive, keyProbes),
			lab.AtClient(keyKeepalive, strconv.Itoa(values[value])), lab.AtClient(keyProbes, "1"))
		return cases.Idled(-1, forgets, set...)
	})
}

func proveTracksEstablished(p Proposal) (lab.Experiment, error) {
	old, new, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	before, after, scaled := scale(old, new, forgets)
	if max(before, after) < 3*forgets {
		return lab.Experiment{}, fmt.Errorf("%d and %d s are too near to each other to be told apart", old, new)
	}
	values := map[string]int{p.Old: before, p.New: after}
	e := cases.VanishedConnectionsProof
	e.Question = "Do idle connections survive the firewall?"
	e.Setup = fmt.Sprintf("a firewall that forgets after %s s and %s s%s; 20 connections, idle for 4 s", number(old), number(new),
		scaled)
	return p.compare(e, 7, func(value string) lab.Measure {
		return cases.Idled(0, values[value], p.sysctls(lab.AtServer, "", keyTracksEstablished)...)
	})
}

// proveTracksTimeWait shows what a proposal is made for: a longer memory, so that a NAT
// does not give a port away that the service still remembers; a shorter one, so that the
// table holds fewer entries.
func proveTracksTimeWait(p Proposal) (lab.Experiment, error) {
	old, new, err := p.numbers()
	if err != nil {
		return lab.Experiment{}, err
	}
	low, high := min(old, new), max(old, new)
	if high-low < 5 || low > 90 {
		return lab.Experiment{}, fmt.Errorf("%d and %d s cannot be told apart in a minute and a half", old, new)
	}
	wait := time.Duration(low+2) * time.Second
	if new > old {
		if low > 50 {
			return lab.Experiment{},
				fmt.Errorf("a NAT that remembers for %d s forgets no sooner than the service, which remembers for 60 s",
					old)
		}
		e := cases.SynOnTimeWaitProof
		e.Setup = fmt.Sprintf("two clients behind a real masquerade, the second started a minute later; "+
			"8 connects each from the same ports, %.0f s apart", wait.Seconds())
		return p.compare(e, wait.Seconds()+5, func(value string) lab.Measure {
			return cases.Collided(p.Key+"="+value, cases.CollisionArm{NATRemembers: true, NATTimeout: value, Wait: wait})
		})
	}
	return p.compare(lab.Experiment{
		Problem: "conntrack-full", Load: lab.Waits,
		Question: "How many closed connections does the table still hold?",
		Setup:    fmt.Sprintf("100 connections that the service closes first, counted %.0f s later", wait.Seconds()),
		Quantities: []proof.Quantity{{Name: "entries", Title: "entries of the table", Unit: "entries", Better: proof.Less,
			Margin: proof.Margin{Absolute: 5}}},
	}, wait.Seconds()+3, func(value string) lab.Measure {
		return remembered(p.Key, value, wait, p.sysctls(lab.AtServer, "")...)
	})
}

// remembered closes 100 connections at a service that tracks them, with a value of a key
// of its table, and counts what the table still holds when it has waited.
func remembered(key, value string, wait time.Duration, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, cases.ServerCloses, set...)
		if err != nil {
			return err
		}
		if err := s.ServerNode.RefuseUnknown(nftables.ChainHookInput); err != nil {
			return err
		}
		if err := s.ServerNode.Set(key, value); err != nil {
			return err
		}
		if err := s.Burst(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 100, PeerCloses: true}); err != nil {
			return err
		}
		stage.Sleep(ctx, wait)
		entries, err := s.ServerNode.Tracked()
		t.Record("entries", float64(entries))
		return err
	}
}
