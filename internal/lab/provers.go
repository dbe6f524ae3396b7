package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/sockdiag"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// runner is one run of an arm.
type runner = func(context.Context, *Trial) error

// holdConnections opens connections that stay, and records how many failed.
func holdConnections(serve ServeSpec, dial DialSpec, prepare func(stage) error, set ...setting) runner {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, serve, set...)
		if err == nil && prepare != nil {
			err = prepare(s)
		}
		if err != nil {
			return err
		}
		dial.To = []endpoint{s.service}
		done, err := s.parties.client.Hold(ctx, dial)
		if err != nil {
			return err
		}
		t.record(done)
		return nil
	}
}

func number(n int) string { return proof.Number(float64(n)) }

// provedRange is how many ports the smaller of two ranges has in the laboratory.
const provedRange = 1000

func proveRange(c Change) (Experiment, error) {
	reserved, err := tcp.ParsePortSet(c.Beside[keyReserved])
	if err != nil {
		return Experiment{}, err
	}
	before, errOld := freePorts(c.Old, reserved)
	after, errNew := freePorts(c.New, reserved)
	if err := errors.Join(errOld, errNew); err != nil {
		return Experiment{}, err
	}
	old, new, scaled := scale(before, after, provedRange)
	if old == new {
		return Experiment{}, fmt.Errorf("both ranges leave %d ports", before)
	}
	ports := map[string]int{c.Old: old, c.New: new}
	connects := min(old, new) + min(max(old, new)-min(old, new), provedRange)
	return c.compare(Experiment{
		Problem:  "port-exhaustion",
		Question: "How many connects to one service find no source port?",
		Setup:    fmt.Sprintf("%s source ports and %s, without the reserved ones%s; %s connections to one service, kept open", number(before), number(after), scaled, number(connects)),
		Load:     Works, Quantities: []proof.Quantity{failures, succeeded},
	}, 3, func(value string) runner {
		narrow := func(s stage) error { return narrowRange(s.client, ports[value]) }
		return holdConnections(ServeSpec{Close: CloseSecond}, DialSpec{Count: connects}, narrow, c.settings(atClient, value, keyRange, keyReserved)...)
	})
}

// proveReserved has a client take every source port around one that is reserved, and
// counts the reserved ones that it got.
func proveReserved(c Change) (Experiment, error) {
	old, errOld := tcp.ParsePortSet(c.Old)
	new, errNew := tcp.ParsePortSet(c.New)
	if err := errors.Join(errOld, errNew); err != nil {
		return Experiment{}, err
	}
	first := 0
	for port := 1024; port <= math.MaxUint16 && first == 0; port++ {
		if new.Contains(uint16(port)) && !old.Contains(uint16(port)) {
			first = port
		}
	}
	if first == 0 {
		return Experiment{}, errors.New("it reserves no port that was not reserved")
	}
	around := tcp.PortRange{Low: uint16(max(1024, first-50)), High: uint16(min(math.MaxUint16, first+49))}
	return c.compare(Experiment{
		Problem:    "port-exhaustion",
		Question:   "Does connect() take a port that a service needs?",
		Setup:      fmt.Sprintf("source ports %s, and connects until there is no more", around),
		Load:       Works,
		Quantities: []proof.Quantity{{Name: "taken", Title: "ports taken that the plan reserves", Unit: "ports", Better: proof.Less}, succeeded},
	}, 2, func(value string) runner {
		return func(ctx context.Context, t *Trial) error {
			set := append(c.settings(atClient, value, keyRange), setting{atClient, keyRange, fmt.Sprintf("%d %d", around.Low, around.High)})
			s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, set...)
			if err != nil {
				return err
			}
			done, err := s.parties.client.Hold(ctx, DialSpec{To: []endpoint{s.service}, Count: around.Size() + 1})
			if err != nil {
				return err
			}
			taken := 0
			err = s.client.each(ctx, func(socket *tcp.Socket) {
				if new.Contains(socket.LocalPort) && !old.Contains(socket.LocalPort) {
					taken++
				}
			})
			t.Record("taken", float64(taken))
			t.record(done)
			return err
		}
	})
}

// each tells of each connection of a node.
func (n *Node) each(ctx context.Context, tell func(*tcp.Socket)) error {
	c, err := sockdiag.Dial(n.netns.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Dump(ctx, sockdiag.Request{States: []tcp.State{tcp.Established}}, tell)
}

// proveTakeOver fills a range with TIME_WAIT and connects again when that is old enough:
// for a changed delay, older than the shorter one and younger than the longer one.
func proveTakeOver(c Change) (Experiment, error) {
	wait := afterDelay
	if c.Key == keyReuseDelay {
		old, new, err := c.numbers()
		if err != nil {
			return Experiment{}, err
		}
		low, high := min(old, new), max(old, new)
		if high < 2*low {
			return Experiment{}, fmt.Errorf("%d and %d ms are too near to each other to be told apart", old, new)
		}
		wait = time.Duration(min((low+high)/2, low+2000)) * time.Millisecond
	}
	return c.compare(Experiment{
		Problem:  "tw-reuse",
		Question: "Do connects take over ports that wait?",
		Setup:    fmt.Sprintf("200 source ports, all in TIME_WAIT for %.3g s; then 100 connects to the same service", wait.Seconds()),
		Load:     Waits,
		Quantities: []proof.Quantity{
			failures, succeeded, {Name: "taken_over", Title: "TIME_WAIT taken over (TWRecycled)", Unit: "sockets"},
		},
	}, 3+wait.Seconds(), func(value string) runner {
		return takeOver(wait, c.settings(atClient, value, keyRange, keyReserved)...)
	})
}

var lasted = []proof.Quantity{
	{Name: "seconds", Title: "half of them are gone after", Unit: "seconds", Better: proof.Less, Margin: proof.Margin{Absolute: 8}},
	{Name: "last", Title: "the last is gone after", Unit: "seconds"},
}

// proveFinTimeout measures what the plan wants to change: how long TIME_WAIT lasts, for
// a value below the default; how far the time in FIN_WAIT2 is from what the setting says,
// for one that the kernel counts otherwise; else that time itself.
func proveFinTimeout(c Change) (Experiment, error) {
	old, new, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	for _, value := range []int{old, new} {
		if lasts := finWait2Seconds(value); new >= 60 && lasts > 125 {
			return Experiment{}, fmt.Errorf("an orphan would stay for %d s: longer than a run may take", lasts)
		}
	}
	e := Experiment{Problem: "fin-timeout", Load: Waits, Quantities: lasted}
	if new < 60 {
		e.Question = "Does TIME_WAIT end sooner?"
		e.Setup = "50 connections that the client closes first"
		return c.compare(e, 68, func(value string) runner {
			return waitFor(tcp.TimeWait, tcp.TimeWait, CloseSecond, 90*time.Second, c.settings(atClient, value)...)
		})
	}
	e.Question = "How long does an orphan in FIN_WAIT2 stay?"
	e.Setup = "50 connections that the client closes and the service never does"
	if old > 60 && old < 120 {
		e.Question = "Does an orphan in FIN_WAIT2 stay for as long as the setting says?"
		e.Quantities = append([]proof.Quantity{
			{Name: "off", Title: "off what the setting says", Unit: "seconds", Better: proof.Less, Margin: proof.Margin{Absolute: 8}},
		}, undirected(lasted)...)
	}
	return c.compare(e, float64(max(finWait2Seconds(old), finWait2Seconds(new)))*1.1+2, func(value string) runner {
		return func(ctx context.Context, t *Trial) error {
			if err := waitFor(tcp.FinWait2, tcp.FinWait2TimeWait, AcceptNever, 150*time.Second, c.settings(atClient, value)...)(ctx, t); err != nil {
				return err
			}
			says, err := strconv.ParseFloat(value, 64)
			t.Record("off", math.Abs(t.run.Values["seconds"]-says))
			return err
		}
	})
}

// finWait2Seconds is how long an orphan stays in FIN_WAIT2 (tcp_rcv_state_process of
// net/ipv4/tcp_input.c): above 60 the setting less 60, and as long again.
func finWait2Seconds(setting int) int {
	if setting > 60 {
		return 2 * (setting - 60)
	}
	return setting
}

func undirected(quantities []proof.Quantity) []proof.Quantity {
	quantities = slices.Clone(quantities)
	for i := range quantities {
		quantities[i].Better = ""
	}
	return quantities
}

func proveBuckets(c Change) (Experiment, error) {
	before, after, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	const most = 400
	old, new, scaled := scale(before, after, most)
	values := map[string]string{c.Old: strconv.Itoa(old), c.New: strconv.Itoa(new)}
	low, high := min(old, new), max(old, new)
	if low == high {
		return Experiment{}, fmt.Errorf("%d and %d are too near to each other to be told apart", before, after)
	}
	closes := low + min(high-low, most)
	e := timeWaitOverflowProof
	e.Question = "How many connections lose their TIME_WAIT?"
	e.Setup = fmt.Sprintf("limits of %s and %s%s; %d connections that the service closes first", number(before), number(after), scaled, closes)
	e.Load = Works
	return c.compare(e, 2, func(value string) runner {
		return overflown(serverCloses, DialSpec{PeerCloses: true, Count: closes}, append(c.settings(atServer, "", keyBuckets), buckets(values[value]))...)
	})
}

func proveSomaxconn(c Change) (Experiment, error) {
	old, new, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	const most, more = 5000, 20
	if min(old, new) > most {
		return Experiment{}, fmt.Errorf("%d connections are more than the laboratory queues (%d)", min(old, new), most)
	}
	connects := min(old, new) + 1 + more
	return c.compare(Experiment{
		Problem:  "accept-queue-overflow",
		Question: "How many connections does a listener queue that asks for all it can get?",
		Setup:    fmt.Sprintf("a service that listens with a backlog of 65,535 and accepts nothing; %s connects", number(connects)),
		Load:     Waits, Quantities: []proof.Quantity{failures, succeeded},
	}, 5, func(value string) runner {
		return holdConnections(ServeSpec{Close: AcceptNever, Backlog: math.MaxUint16}, DialSpec{Count: connects, PatienceMS: 150}, nil, c.settings(atServer, value)...)
	})
}

func proveRFC1337(c Change) (Experiment, error) {
	e := synOnTimeWaitProof
	e.Question = "Do connects succeed that meet the TIME_WAIT of another client?"
	e.Quantities = []proof.Quantity{e.Quantities[1], e.Quantities[2], e.Quantities[3]}
	return c.compare(e, 3, func(value string) runner {
		return collided(c.Key+"="+value, collisionArm{rfc1337: value == "1"})
	})
}

// forgets is after how many idle seconds the firewall of an experiment forgets, whose
// connections are idle for twice as long.
const forgets = 2

// proveKeepalive has the time between two probes at its least: at its usual minute and a
// quarter nothing would be probed twice.
func proveKeepalive(c Change) (Experiment, error) {
	old, new, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	before, after, scaled := scale(old, new, 1)
	if max(before, after) < 3*forgets {
		return Experiment{}, fmt.Errorf("%d and %d s are too near to each other to be told apart", old, new)
	}
	values := map[string]int{c.Old: before, c.New: after}
	e := vanishedConnectionsProof
	e.Question = "Do idle connections with SO_KEEPALIVE survive a firewall that forgets?"
	e.Setup = fmt.Sprintf("%s s and %s s%s; 20 connections, idle for 4 s, through a firewall that forgets after %d s", number(old), number(new), scaled, forgets)
	return c.compare(e, 7, func(value string) runner {
		// The kernel waits for tcp_keepalive_intvl after a probe that is answered, too.
		set := append(c.settings(atClient, "", keyKeepalive, keyProbes),
			setting{atClient, keyKeepalive, strconv.Itoa(values[value])}, setting{atClient, keyProbes, "1"})
		return idled(-1, forgets, set...)
	})
}

func proveTracksEstablished(c Change) (Experiment, error) {
	old, new, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	before, after, scaled := scale(old, new, forgets)
	if max(before, after) < 3*forgets {
		return Experiment{}, fmt.Errorf("%d and %d s are too near to each other to be told apart", old, new)
	}
	values := map[string]int{c.Old: before, c.New: after}
	e := vanishedConnectionsProof
	e.Question = "Do idle connections survive the firewall?"
	e.Setup = fmt.Sprintf("a firewall that forgets after %s s and %s s%s; 20 connections, idle for 4 s", number(old), number(new), scaled)
	return c.compare(e, 7, func(value string) runner {
		return idled(0, values[value], c.settings(atServer, "", keyTracksEstablished)...)
	})
}

// proveTracksTimeWait shows what a change is made for: a longer memory, so that a NAT
// does not give a port away that the service still remembers; a shorter one, so that the
// table holds fewer entries.
func proveTracksTimeWait(c Change) (Experiment, error) {
	old, new, err := c.numbers()
	if err != nil {
		return Experiment{}, err
	}
	low, high := min(old, new), max(old, new)
	if high-low < 5 || low > 90 {
		return Experiment{}, fmt.Errorf("%d and %d s cannot be told apart in a minute and a half", old, new)
	}
	wait := time.Duration(low+2) * time.Second
	if new > old {
		if low > 50 {
			return Experiment{}, fmt.Errorf("a NAT that remembers for %d s forgets no sooner than the service, which remembers for 60 s", old)
		}
		e := synOnTimeWaitProof
		e.Setup = fmt.Sprintf("two clients behind a real masquerade, the second started a minute later; 8 connects each from the same ports, %.0f s apart", wait.Seconds())
		return c.compare(e, wait.Seconds()+5, func(value string) runner {
			return collided(c.Key+"="+value, collisionArm{natRemembers: true, natTimeout: value, wait: wait})
		})
	}
	return c.compare(Experiment{
		Problem: "conntrack-full", Load: Waits,
		Question:   "How many closed connections does the table still hold?",
		Setup:      fmt.Sprintf("100 connections that the service closes first, counted %.0f s later", wait.Seconds()),
		Quantities: []proof.Quantity{{Name: "entries", Title: "entries of the table", Unit: "entries", Better: proof.Less, Margin: proof.Margin{Absolute: 5}}},
	}, wait.Seconds()+3, func(value string) runner {
		return func(ctx context.Context, t *Trial) error {
			s, err := t.stage(ctx, serverCloses, c.settings(atServer, "")...)
			if err != nil {
				return err
			}
			if err := s.server.refuseUnknown(nftables.ChainHookInput); err != nil {
				return err
			}
			if err := s.server.Set(c.Key, value); err != nil {
				return err
			}
			if err := burst(ctx, s.parties, DialSpec{To: []endpoint{s.service}, Count: 100, PeerCloses: true}); err != nil {
				return err
			}
			sleep(ctx, wait)
			entries, err := s.server.tracked()
			t.Record("entries", float64(entries))
			return err
		}
	})
}

// tracked counts the entries of a node's table that have not expired: those that have
// are in nf_conntrack_count until the kernel looks through its table, once a minute
// (gc_worker of net/netfilter/nf_conntrack_core.c).
func (n *Node) tracked() (count int, err error) {
	err = n.Do(func() error {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(unix.AF_INET))
		count = len(entries)
		return err
	})
	return count, err
}
