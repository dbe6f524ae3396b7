package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"linger/internal/lab/wire"
	"linger/internal/proof"
)

// Collided is what the second of two clients behind a NAT met where the first had
// been.
type Collided struct {
	Second Connects
	// Refused are SYNs that TIME_WAIT answered by an ACK, Resets the second client's
	// replies to that.
	Refused, Resets int
	// Met are the connects whose SYN was answered so, however often.
	Met int
	// Ports are the source ports that the server saw of the second client that it had
	// seen of the first.
	Ports int
	// Ladder is that of one connect of the second client.
	Ladder wire.Ladder
}

// collisionArm is a way to run the experiment.
type collisionArm struct {
	// natRemembers leaves the NAT its table, which is emptied otherwise.
	natRemembers bool
	// natTimeout is for how many seconds the NAT remembers a closed connection, empty for
	// its default, and wait how much later the second client comes.
	natTimeout string
	wait       time.Duration

	rfc1337 bool
	// secondAhead makes the second client's clock the newer one.
	secondAhead bool
}

const collisions = 8

// measureCollision has a client open connections that the server closes first, has the
// NAT forget them, and has another client use the same source ports.
func measureCollision(ctx context.Context, on network, arm collisionArm) (result Collided, err error) {
	t, err := newMasqueraded(on)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	// No late reset of the first client is to end TIME_WAIT before the second one comes.
	if err := t.server.Set("net.ipv4.tcp_rfc1337", "1"); err != nil {
		return result, err
	}
	if arm.natTimeout != "" {
		if err := t.nat.Set(keyTracksTimeWait, arm.natTimeout); err != nil {
			return result, err
		}
	}
	shift := uint32(clockBehind)
	if arm.secondAhead {
		shift = -shift
	}
	shiftClock(t.toSecond, shift)
	service, err := t.serve(ctx, on.ipv6)
	if err != nil {
		return result, err
	}
	first, err := connectSeveral(ctx, t.first, on.ipv6, 40000, collisions, service)
	if err == nil && first.Failed > 0 {
		err = fmt.Errorf("%d of %d connects of the first client failed", first.Failed, collisions)
	}
	if err != nil {
		return result, err
	}
	if err := t.awaitTimeWaits(ctx, collisions); err != nil {
		return result, err
	}
	// What is still under way when the NAT forgets it answers by resets, which end TIME_WAIT.
	if err := settled(ctx, t.first, t.server); err != nil {
		return result, err
	}
	if err := t.toServer.Quiet(ctx, 100*time.Millisecond); err != nil {
		return result, err
	}
	sleep(ctx, arm.wait)
	if !arm.natRemembers {
		// A late segment of the first client would have it remember again.
		if err := t.nat.Set("net.netfilter.nf_conntrack_tcp_loose", "0"); err != nil {
			return result, err
		}
		if err := t.nat.forget(on.ipv6); err != nil {
			return result, err
		}
	}
	if !arm.rfc1337 {
		if err := t.server.Set("net.ipv4.tcp_rfc1337", "0"); err != nil {
			return result, err
		}
	}
	before, err := t.server.counters()
	if err != nil {
		return result, err
	}
	since := t.toServer.Now()
	if result.Second, err = connectSeveral(ctx, t.second, on.ipv6, 40000, collisions, service); err != nil {
		return result, err
	}
	after, err := t.server.counters()
	if err != nil {
		return result, err
	}
	result.Refused = refusedSYNs(before, after)
	result.Resets = t.toServer.Count(since, wire.Match{From: wire.Left, Has: wire.RST})
	result.Met = refusedConnects(t.toServer.Passed(since))
	result.Ports = samePorts(t.toServer.Passed(0), since)
	result.Ladder = firstConnect(t.toServer, since)
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

func collided(title string, arm collisionArm) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		r, err := measureCollision(ctx, t.network(), arm)
		if err != nil {
			return err
		}
		t.Record("refused", float64(r.Met))
		t.Record("failed", float64(r.Second.Failed))
		t.Record("same_ports", float64(r.Ports))
		if n := len(r.Second.Latencies); n > 0 {
			t.Record("latency", slices.Sorted(slices.Values(r.Second.Latencies))[n/2])
		}
		t.Draw(ladderOf("A connect of the second client, "+title, r.Ladder))
		return nil
	}
}

var synOnTimeWaitProof = Experiment{
	Name: "syn-on-time-wait", Problem: "syn-on-time-wait",
	Title:    "A second client meets the TIME_WAIT of a first one",
	Question: "Two clients share the address of a NAT that forgets before the server does. What do their connects cost?",
	Setup:    "two clients behind a real masquerade, the second started a minute later; 8 connects each from the same ports; the NAT forgets them in between; 2.5 s of patience",
	Load:     Waits,
	Wired:    true,
	Quantities: []proof.Quantity{
		{Name: "refused", Title: "connects that TIME_WAIT refused at first", Unit: "connects", Better: proof.Less},
		{Name: "failed", Title: "connects that failed", Unit: "connects", Better: proof.Less},
		{Name: "same_ports", Title: "connects on a port of the first client", Unit: "connects"},
		{Name: "latency", Title: "median time of a connect", Unit: "ms"},
	},
	Arms: []Arm{
		{Arm: base("the NAT forgets", proof.Exactly("failed", 0), proof.Exactly("same_ports", collisions)), Seconds: 1, Run: collided("the NAT forgets", collisionArm{})},
		{Arm: remedy("nat-remembers", "The NAT remembers", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=120 (default)", proof.Works, proof.Exactly("failed", 0), proof.Exactly("same_ports", 0)), Seconds: 1, Run: collided("the NAT remembers", collisionArm{natRemembers: true})},
		{Arm: observe("ipv6", "The same over IPv6", "an IPv6 masquerade", proof.NoEffect, proof.Exactly("same_ports", collisions)), Seconds: 1, Run: overIPv6(collided("over IPv6", collisionArm{}))},
		{Arm: observe("newer-clock", "The second client's clock is the newer one", "uptime", proof.Works, proof.Exactly("failed", 0)), Seconds: 1, Run: collided("its clock is the newer one", collisionArm{secondAhead: true})},
		{Arm: turning("tcp_rfc1337", folklore("rfc1337", "The server ignores resets in TIME_WAIT", "net.ipv4.tcp_rfc1337=1", proof.Harmful, proof.Exactly("failed", collisions))), Seconds: 3, Run: collided("tcp_rfc1337=1", collisionArm{rfc1337: true})},
	},
}
