package lab

import (
	"context"
	"errors"
	"net/netip"

	"linger/internal/lab/wire"
)

// Collided is what the second of two clients behind a NAT met where the first had
// been.
type Collided struct {
	Second Connects
	// Refused are SYNs that TIME_WAIT answered by an ACK, Resets the second client's
	// replies to that.
	Refused, Resets int
	// Ports are the source ports that the server saw of the second client that it had
	// seen of the first.
	Ports  int
	Ladder wire.Ladder
}

// collisionArm is a way to run the experiment.
type collisionArm struct {
	// natRemembers leaves the NAT its table, which is emptied otherwise.
	natRemembers bool
	rfc1337      bool
	// secondAhead makes the second client's clock the newer one.
	secondAhead bool
}

const collisions = 8

// measureCollision has a client open connections that the server closes first, empties
// the table of the NAT, and has another client use the same source ports.
func measureCollision(ctx context.Context, ipv6 bool, arm collisionArm) (result Collided, err error) {
	t, err := newMasqueraded()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if arm.rfc1337 {
		if err := t.server.Set("net.ipv4.tcp_rfc1337", "1"); err != nil {
			return result, err
		}
	}
	shift := uint32(clockBehind)
	if arm.secondAhead {
		shift = -shift
	}
	shiftClock(t.toSecond, shift)
	service, err := t.serve(ctx, ipv6)
	if err != nil {
		return result, err
	}
	if _, err := connectSeveral(ctx, t.first, ipv6, 40000, collisions, service); err != nil {
		return result, err
	}
	if err := t.awaitTimeWaits(ctx, collisions); err != nil {
		return result, err
	}
	if !arm.natRemembers {
		if err := t.nat.forget(); err != nil {
			return result, err
		}
	}
	before, err := t.server.counters()
	if err != nil {
		return result, err
	}
	since := t.toServer.Now()
	if result.Second, err = connectSeveral(ctx, t.second, ipv6, 40000, collisions, service); err != nil {
		return result, err
	}
	after, err := t.server.counters()
	if err != nil {
		return result, err
	}
	result.Refused = refusedSYNs(before, after)
	result.Resets = t.toServer.Count(since, wire.Match{From: wire.Left, Has: wire.RST})
	result.Ports = samePorts(t.toServer.Passed(0), since)
	result.Ladder = t.toServer.Ladder(since)
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
