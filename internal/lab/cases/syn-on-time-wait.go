package cases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/proof"
	"linger/internal/setting"
)

var synOnTimeWait = Case{
	Scenario: &Scenario{
		Slug:         "syn-on-time-wait",
		Title:        "two hosts behind a NAT that forgets a closed connection after a second use the same ports",
		Cure:         "the NAT remembers it for longer than the service's 60 s",
		Make:         makeSynOnTimeWait,
		Draw:         Draw{Ports: func(Options) int { return natRange }},
		Consequences: []diagnose.Slug{"connection-churn", "vanished-connections"},
	},
	Experiments: []lab.Experiment{SynOnTimeWaitProof},
}

// natRange is how many source ports its client has.
const natRange = 256

func makeSynOnTimeWait(ctx context.Context, b *Built, o Options) error {
	// The second host is a second address of the client's node, translated to the
	// first: the clock of its time stamps is another, as it is made of the addresses
	// before translation (net/core/secure_seq.c).
	own := b.ClientNode.Addr(o.IPv6)
	inside, err := second(b.ClientNode, own)
	if err != nil {
		return err
	}
	if err := b.ClientNode.Translate(stage.Translation{From: inside, To: own}); err != nil {
		return err
	}
	if err := b.ClientNode.NarrowRange(natRange); err != nil {
		return err
	}
	if !o.Cured {
		for _, state := range []string{"time_wait", "close", "last_ack", "close_wait", "fin_wait"} {
			if err := b.ClientNode.Set("net.netfilter.nf_conntrack_tcp_timeout_"+state, "1"); err != nil {
				return err
			}
		}
	}
	p, err := b.start(ctx, o, stage.CloseFirst)
	if err != nil {
		return err
	}
	b.Expect = b.expectAcceptor(p)
	dial := stage.DialSpec{
		To: []netip.AddrPort{p.Service}, From: []netip.Addr{own, inside}, PeerCloses: true, Batch: 1,
		// A connect that is refused holds up the next ones for so long: several are to fall into each second.
		PatienceMS: 100,
	}
	// Every port that connect() prefers once, so that each has its TIME_WAIT at the service.
	dial.Count, dial.Rate = natRange, 200
	if _, err := p.Client.Churn(ctx, dial); err != nil {
		return err
	}
	dial.Count, dial.Rate = 0, 40
	return p.Client.Begin(ctx, dial)
}

// second gives a node another address beside the one that it has.
func second(n *stage.Node, beside netip.Addr) (netip.Addr, error) {
	bytes := beside.AsSlice()
	bytes[len(bytes)-1] += 100
	other, _ := netip.AddrFromSlice(bytes)
	return other, n.AddAddress(other)
}

// collision is what the second of two clients behind a NAT met where the first had
// been.
type collision struct {
	second connects
	// refused are SYNs that TIME_WAIT answered by an ACK, resets the second client's
	// replies to that.
	refused, resets int
	// met are the connects whose SYN was answered so, however often.
	met int
	// ports are the source ports that the server saw of the second client that it had
	// seen of the first.
	ports int
	// ladder is that of one connect of the second client.
	ladder wire.Ladder
}

// CollisionArm is a way to run the experiment.
type CollisionArm struct {
	// NATRemembers leaves the NAT its table, which is emptied otherwise.
	NATRemembers bool
	// NATTimeout is for how many seconds the NAT remembers a closed connection, empty for
	// its default, and Wait how much later the second client comes.
	NATTimeout string
	Wait       time.Duration

	RFC1337 bool
	// secondAhead makes the second client's clock the newer one.
	secondAhead bool
}

const collisions = 8

// measureCollision has a client open connections that the server closes first, has the
// NAT forget them, and has another client use the same source ports.
func measureCollision(ctx context.Context, on stage.Wiring, arm CollisionArm) (result collision, err error) {
	t, err := newMasqueraded(on)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if arm.NATTimeout != "" {
		if err := t.nat.Set(setting.TrackedTimeWait, arm.NATTimeout); err != nil {
			return result, err
		}
	}
	shift := uint32(clockBehind)
	if arm.secondAhead {
		shift = -shift
	}
	shiftClock(t.toSecond, shift)
	service, err := t.serve(ctx, on.IPv6)
	if err != nil {
		return result, err
	}
	if err := t.comeFirst(ctx, on, service); err != nil {
		return result, err
	}
	stage.Sleep(ctx, arm.Wait)
	if !arm.NATRemembers {
		if err := t.forget(on); err != nil {
			return result, err
		}
	}
	if !arm.RFC1337 {
		if err := t.server.Set(setting.RFC1337, "0"); err != nil {
			return result, err
		}
	}
	return t.comeSecond(ctx, on, service)
}

// comeFirst has the first client's connections leave their TIME_WAIT at the server, and
// nothing under way.
func (t *masqueraded) comeFirst(ctx context.Context, on stage.Wiring, service netip.AddrPort) error {
	// No late reset of the first client is to end TIME_WAIT before the second one comes.
	if err := t.server.Set(setting.RFC1337, "1"); err != nil {
		return err
	}
	first, err := connectSeveral(ctx, t.first, on.IPv6, 40000, collisions, service)
	if err == nil && first.failed > 0 {
		err = fmt.Errorf("%d of %d connects of the first client failed", first.failed, collisions)
	}
	if err != nil {
		return err
	}
	if err := t.awaitTimeWaits(ctx, collisions); err != nil {
		return err
	}
	// What is still under way when the NAT forgets it answers by resets, which end TIME_WAIT.
	if err := stage.Settled(ctx, stage.ServicePort, t.first, t.server); err != nil {
		return err
	}
	return t.toServer.Quiet(ctx, 100*time.Millisecond)
}

// forget has the NAT forget the first client.
func (t *masqueraded) forget(on stage.Wiring) error {
	// A late segment of the first client would have it remember again.
	if err := t.nat.Set("net.netfilter.nf_conntrack_tcp_loose", "0"); err != nil {
		return err
	}
	return t.nat.Forget(on.IPv6)
}

// comeSecond has the second client connect from the ports of the first.
func (t *masqueraded) comeSecond(ctx context.Context, on stage.Wiring, service netip.AddrPort) (result collision, err error) {
	before, err := t.server.Counters()
	if err != nil {
		return result, err
	}
	since := t.toServer.Now()
	if result.second, err = connectSeveral(ctx, t.second, on.IPv6, 40000, collisions, service); err != nil {
		return result, err
	}
	after, err := t.server.Counters()
	if err != nil {
		return result, err
	}
	result.refused = refusedSYNs(before, after)
	result.resets = t.toServer.Count(since, wire.Match{From: wire.Left, Has: wire.RST})
	result.met = refusedConnects(t.toServer.Passed(since))
	result.ports = samePorts(t.toServer.Passed(0), since)
	result.ladder = firstConnect(t.toServer, since)
	return result, nil
}

// refusedSYNs are those whose time stamp was older than that of the TIME_WAIT socket:
// PAWSTimewait, which older kernels count in PAWSEstab.
func refusedSYNs(before, after map[string]uint64) int {
	if _, counted := after["TcpExtPAWSTimewait"]; counted {
		return rise(before, after, "TcpExtPAWSTimewait")
	}
	return rise(before, after, "TcpExtPAWSEstab")
}

// awaitTimeWaits waits until the server has made them: its ACK of a client's FIN is what
// shows each on the wire.
func (t *masqueraded) awaitTimeWaits(ctx context.Context, count int) error {
	acks := wire.Match{From: wire.Right, Sequence: wire.AcksFIN}
	made := map[netip.AddrPort]bool{}
	for since := wire.Mark(0); len(made) < count; since++ {
		p, err := t.toServer.Await(ctx, since, acks)
		if err != nil {
			return err
		}
		made[p.Segment.Dst] = true
	}
	return nil
}

// firstConnect is the ladder of the connection whose SYN is the first after a mark.
func firstConnect(w *wire.Wire, since wire.Mark) wire.Ladder {
	var client netip.AddrPort
	return w.Ladder(since, wire.Match{Where: func(s *wire.Segment) bool {
		if !client.IsValid() && s.Flags&(wire.SYN|wire.ACK) == wire.SYN {
			client = s.Src
		}
		return s.Src == client || s.Dst == client
	}})
}

// refusedConnects counts the clients that the server answers by an ACK before any SYN ACK.
func refusedConnects(passed []wire.Passage) int {
	accepted, refused := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for _, p := range passed {
		s := p.Segment
		switch {
		case p.From != wire.Right:
		case s.Flags&wire.SYN != 0:
			accepted[s.Dst] = true
		case s.Flags&(wire.ACK|wire.RST) == wire.ACK && !accepted[s.Dst]:
			refused[s.Dst] = true
		}
	}
	return len(refused)
}

// samePorts counts the source ports of SYNs before a mark that come again after it.
func samePorts(passed []wire.Passage, since wire.Mark) int {
	seen, again := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for i, p := range passed {
		s := p.Segment
		if s.Flags&(wire.SYN|wire.ACK) != wire.SYN {
			continue
		}
		if i < int(since) {
			seen[s.Src] = true
		} else if seen[s.Src] {
			again[s.Src] = true
		}
	}
	return len(again)
}

func Collided(title string, arm CollisionArm) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		r, err := measureCollision(ctx, t.Wiring(), arm)
		if err != nil {
			return err
		}
		t.Record("refused", float64(r.met))
		t.Record("failed", float64(r.second.failed))
		t.Record("same_ports", float64(r.ports))
		if n := len(r.second.latencies); n > 0 {
			t.Record("latency", slices.Sorted(slices.Values(r.second.latencies))[n/2])
		}
		t.Draw(ladderOf("A connect of the second client, "+title, r.ladder))
		return nil
	}
}

var SynOnTimeWaitProof = lab.Experiment{
	Name: "syn-on-time-wait", Problem: "syn-on-time-wait",
	Title:    "A second client meets the TIME_WAIT of a first one",
	Question: "Two clients share the address of a NAT that forgets before the server does. What do their connects cost?",
	Setup: "two clients behind a real masquerade, the second started a minute later; 8 connects each from the same ports; the " +
		"NAT forgets them in between; 2.5 s of patience",
	Load:  lab.Waits,
	Wired: true,
	Quantities: []proof.Quantity{
		{Name: "refused", Title: "connects that TIME_WAIT refused at first", Unit: "connects", Better: proof.Less},
		{Name: "failed", Title: "connects that failed", Unit: "connects", Better: proof.Less},
		{Name: "same_ports", Title: "connects on a port of the first client", Unit: "connects"},
		{Name: "latency", Title: "median time of a connect", Unit: "ms"},
	},
	Arms: []lab.Arm{
		{
			Arm:     base("the NAT forgets", proof.Exactly("failed", 0), proof.Exactly("same_ports", collisions)),
			Seconds: 1, Run: Collided("the NAT forgets", CollisionArm{}),
		},
		{
			Arm: remedy("nat-remembers", "The NAT remembers",
				"net.netfilter.nf_conntrack_tcp_timeout_time_wait=120 (default)", proof.Works, proof.Exactly("failed", 0),
				proof.Exactly("same_ports", 0)),
			Seconds: 1, Run: Collided("the NAT remembers", CollisionArm{NATRemembers: true}),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "an IPv6 masquerade", proof.NoEffect,
				proof.Exactly("same_ports", collisions)),
			Seconds: 1, Run: lab.OverIPv6(Collided("over IPv6", CollisionArm{})),
		},
		{
			Arm: observe("newer-clock", "The second client's clock is the newer one", "uptime", proof.Works,
				proof.Exactly("failed", 0)),
			Seconds: 1, Run: Collided("its clock is the newer one", CollisionArm{secondAhead: true}),
		},
		{
			Arm: turning("tcp_rfc1337", folklore("rfc1337", "The server ignores resets in TIME_WAIT", "net.ipv4.tcp_rfc1337=1", proof.Harmful,
				proof.Exactly("failed", collisions))),
			Seconds: 3, Run: Collided("tcp_rfc1337=1", CollisionArm{RFC1337: true}),
		},
	},
}
