package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"linger/internal/lab/wire"
	"linger/internal/proof"
)

// Guard is what keeps a segment of a closed connection out of a new one with the same
// four numbers.
type Guard string

// The guards, each with all others out of the way, and none.
//
//   - GuardTimeWait: there is no new connection while TIME_WAIT stands.
//   - GuardTimeStamps: the old segment's time stamp is older (PAWS, RFC 7323, 5).
//   - GuardClock: the initial sequence numbers follow a clock, so that the old segment's
//     is no longer in the window (RFC 9293, 3.4.1).
//   - GuardAckBeyond: it acknowledges what was never sent (RFC 9293, 3.10.7.4).
//   - GuardAckTooOld: it acknowledges what was acknowledged more than a window ago
//     (RFC 5961, 5.2).
const (
	GuardTimeWait   Guard = "TIME_WAIT"
	GuardTimeStamps Guard = "time stamps"
	GuardClock      Guard = "clock of the initial sequence number"
	GuardAckBeyond  Guard = "acknowledgement of what was not sent"
	GuardAckTooOld  Guard = "acknowledgement that is too old"
	NoGuard         Guard = "none"
)

// Guards are all of them.
func Guards() []Guard {
	return []Guard{GuardTimeWait, GuardTimeStamps, GuardClock, GuardAckBeyond, GuardAckTooOld, NoGuard}
}

// The bytes of the two connections: as long as each other, and told apart at each place.
var (
	oldBytes = []byte("old.old.old.old.")
	newBytes = []byte("NEW!NEW!NEW!NEW!")
)

// OldSegment is what became of the old segment.
type OldSegment struct {
	// Refused is why there was no new connection, nil if there was one.
	Refused error
	// Delivered is what the receiver's program read in the new connection; Corrupted is
	// how many bytes of it are not those that the sender's program wrote there.
	Delivered []byte
	Corrupted int
	// OlderStamps and Challenges are what the receiver's kernel counted at the old
	// segment, as PAWSEstab and TCPChallengeACK. Answered tells that it answered at once.
	OlderStamps, Challenges int
	Answered                bool
	Ladder                  wire.Ladder
}

// measureOldSegment lets one of the left host's segments be held up on the wire. TCP
// sends it again, the connection ends in order, a new one begins with the same four
// numbers, and the old segment arrives.
//
// Both hosts connect to each other at once (RFC 9293, 3.5: a simultaneous open), so
// that TCP_REPAIR can choose both initial sequence numbers. Natural ones meet once in
// 2³², and the experiment cannot wait for that.
func measureOldSegment(ctx context.Context, on network, guard Guard) (result OldSegment, err error) {
	t, w, err := on.wired("left", "right")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	e := oldSegment{w: w, left: t.Nodes[0], right: t.Nodes[1], ipv6: on.ipv6}
	if err := e.disarm(guard); err != nil {
		return result, err
	}
	held, err := e.first(ctx)
	if err != nil {
		return result, fmt.Errorf("the first connection: %w", err)
	}
	if err := e.second(ctx, guard, held, &result); err != nil {
		return result, fmt.Errorf("the second connection: %w", err)
	}
	result.Ladder = w.Ladder(0, wire.Match{})
	return result, nil
}

type oldSegment struct {
	w           *wire.Wire
	left, right *Node
	ipv6        bool
}

// disarm takes the guards away that settings govern, but for one.
func (e *oldSegment) disarm(guard Guard) error {
	for _, n := range []*Node{e.left, e.right} {
		if guard != GuardTimeStamps {
			if err := n.Set("net.ipv4.tcp_timestamps", "0"); err != nil {
				return err
			}
		}
		if guard != GuardTimeWait {
			// No time-wait socket is made at all.
			if err := n.Set("net.ipv4.tcp_max_tw_buckets", "0"); err != nil {
				return err
			}
		}
	}
	return nil
}

// first is the connection that the old segment is of. The right host closes first.
func (e *oldSegment) first(ctx context.Context) (held wire.Passage, err error) {
	left, right, err := e.meet(ctx, sequences{})
	if err != nil {
		return held, err
	}
	defer left.close()
	defer right.close()
	isOld := wire.Match{From: wire.Left, Payload: oldBytes, Nth: 1}
	e.w.SetRules(
		wire.Rule{Match: isOld, Action: wire.Hold, Note: "held up on the way"},
		wire.Rule{Match: wire.Match{Payload: oldBytes}, Note: "sent again"},
	)
	since := e.w.Now()
	if err := left.write(oldBytes); err != nil {
		return held, err
	}
	if _, err := readAll(ctx, right, len(oldBytes)); err != nil { // TCP has sent it again
		return held, err
	}
	if held, err = e.w.Await(ctx, since, isOld); err != nil {
		return held, err
	}
	// Half closes, since an orphan in FIN_WAIT2 needs a time-wait socket too.
	if err := right.finish(); err != nil {
		return held, err
	}
	if err := left.readEnd(ctx); err != nil {
		return held, err
	}
	if err := left.finish(); err != nil {
		return held, err
	}
	return held, errors.Join(left.gone(ctx), right.gone(ctx))
}

// second is the connection that the old segment arrives in.
func (e *oldSegment) second(ctx context.Context, guard Guard, held wire.Passage, result *OldSegment) error {
	left, right, err := e.meet(ctx, numbers(guard, held.Segment))
	if err != nil {
		if guard != GuardTimeWait {
			return err
		}
		result.Refused = err
		return e.replay(ctx, held, result)
	}
	defer left.close()
	defer right.close()
	if err := e.replay(ctx, held, result); err != nil {
		return err
	}
	e.w.SetRules(wire.Rule{Match: wire.Match{Payload: newBytes}, Note: "the new connection's own bytes"})
	since := e.w.Now()
	if err := left.write(newBytes); err != nil {
		return err
	}
	if result.Delivered, err = readAll(ctx, right, len(newBytes)); err != nil {
		return err
	}
	for i, b := range result.Delivered {
		if b != newBytes[i] {
			result.Corrupted++
		}
	}
	// The sender is told that its bytes have arrived, whichever did.
	_, err = e.w.Await(ctx, since, wire.Match{From: wire.Right, Where: func(s *wire.Segment) bool {
		return s.AckSinceSYN == uint32(1+len(newBytes))
	}})
	return err
}

// replay has the old segment arrive, and waits for the answer if there is one.
func (e *oldSegment) replay(ctx context.Context, held wire.Passage, result *OldSegment) error {
	before, err := e.right.counters()
	if err != nil {
		return err
	}
	since := e.w.Now()
	// The kernel has dealt with it when Send returns.
	if err := e.w.Send(wire.Left, held.Segment.Packet(), "the old segment arrives"); err != nil {
		return err
	}
	after, err := e.right.counters()
	if err != nil {
		return err
	}
	result.OlderStamps = rise(before, after, "TcpExtPAWSEstab")
	result.Challenges = rise(before, after, "TcpExtTCPChallengeACK")
	result.Answered = rise(before, after, "TcpOutSegs") > 0
	if result.Answered {
		_, err = e.w.Await(ctx, since, wire.Match{From: wire.Right})
	}
	return err
}

// sequences are the initial sequence numbers of both hosts, 0 for the clock's.
type sequences struct{ left, right uint32 }

// numbers have the old segment meet the new connection: it begins at the next byte that
// the right host expects, and acknowledges the last that it sent.
func numbers(guard Guard, old wire.Segment) sequences {
	meeting := sequences{left: old.Seq - 1, right: old.Ack - 1}
	switch guard {
	case GuardClock:
		meeting.left = 0
	case GuardAckBeyond:
		meeting.right -= 100_000
	case GuardAckTooOld:
		meeting.right = 0
	}
	return meeting
}

// meet opens a connection from both sides at once: the wire holds the SYNs until both
// are on their way.
func (e *oldSegment) meet(ctx context.Context, at sequences) (left, right *socket, err error) {
	leftEnd, rightEnd := wirePorts(e.ipv6)
	if left, err = e.left.socket(leftEnd); err != nil {
		return nil, nil, err
	}
	if right, err = e.right.socket(rightEnd); err != nil {
		left.close()
		return nil, nil, err
	}
	if err := e.cross(ctx, left, right, at); err != nil {
		left.close()
		right.close()
		return nil, nil, err
	}
	return left, right, nil
}

// cross connects the two sockets to each other.
func (e *oldSegment) cross(ctx context.Context, left, right *socket, at sequences) error {
	if at.left != 0 {
		if err := left.beginAt(at.left); err != nil {
			return err
		}
	}
	if at.right != 0 {
		if err := right.beginAt(at.right); err != nil {
			return err
		}
	}
	syn := wire.Match{Has: wire.SYN, Lacks: wire.ACK}
	e.w.SetRules(wire.Rule{Match: syn, Action: wire.Hold, Note: "waits for the other SYN"})
	since := e.w.Now()
	leftEnd, rightEnd := wirePorts(e.ipv6)
	// The right one first: it is where TIME_WAIT may stand.
	if err := right.begin(leftEnd); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := left.begin(rightEnd); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	var syns []wire.Passage
	for _, from := range []wire.Side{wire.Left, wire.Right} {
		p, err := e.w.Await(ctx, since, wire.Match{From: from, Has: wire.SYN})
		if err != nil {
			return err
		}
		syns = append(syns, p)
	}
	e.w.SetRules()
	for _, p := range syns {
		if err := e.w.Send(p.From, p.Segment.Packet(), "arrives"); err != nil {
			return err
		}
	}
	if err := errors.Join(left.established(ctx), right.established(ctx)); err != nil {
		return err
	}
	return e.quiet(ctx)
}

// quiet waits until the segments of the handshake have all arrived: each host's last
// one acknowledges the other's.
func (e *oldSegment) quiet(ctx context.Context) error {
	return e.w.Quiet(ctx, 20*time.Millisecond)
}

// readAll reads that many bytes.
func readAll(ctx context.Context, s *socket, size int) ([]byte, error) {
	got := make([]byte, 0, size)
	for len(got) < size {
		some, err := s.read(ctx, size-len(got))
		if err != nil {
			return got, err
		}
		got = append(got, some...)
	}
	return got, nil
}

func oldSegmentArrives(guard Guard) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		r, err := measureOldSegment(ctx, t.network(), guard)
		if err != nil {
			return err
		}
		t.Record("corrupted", float64(r.Corrupted))
		t.Record("refused", truth(r.Refused != nil))
		t.Record("older_stamps", float64(r.OlderStamps))
		t.Record("challenges", float64(r.Challenges))
		t.Draw(ladderOf("The old segment arrives; guard: "+string(guard), r.Ladder))
		return nil
	}
}

var whyOldSegmentProof = Experiment{
	Name:     "why-old-segment",
	Title:    "The second reason for TIME_WAIT: old segments must die first",
	Question: "A segment of a closed connection arrives in a new one with the same four numbers. What keeps its bytes out?",
	Setup:    "two hosts on a wire that holds a segment of 16 bytes until the next connection; initial sequence numbers chosen by TCP_REPAIR, since the clock's own meet once in 2^32",
	Load:     Waits,
	Wired:    true,
	Quantities: []proof.Quantity{
		{Name: "corrupted", Title: "bytes read that were not sent in that connection", Unit: "bytes", Better: proof.Less},
		{Name: "refused", Title: "new connections refused (EADDRNOTAVAIL)", Unit: "connections"},
		{Name: "older_stamps", Title: "segments refused by their time stamp (PAWSEstab)", Unit: "segments"},
		{Name: "challenges", Title: "challenge ACKs (TCPChallengeACK)", Unit: "segments"},
	},
	Arms: []Arm{
		{Arm: base("all guards out of the way", proof.Exactly("corrupted", 16)), Seconds: 1, Run: oldSegmentArrives(NoGuard)},
		{Arm: observe("ipv6", "The same over IPv6", "IPv6 addresses", proof.NoEffect, proof.Exactly("corrupted", 16)), Seconds: 1, Run: overIPv6(oldSegmentArrives(NoGuard))},
		{Arm: turning("tcp_max_tw_buckets", observe("time-wait", "TIME_WAIT alone", "net.ipv4.tcp_max_tw_buckets as it is", proof.Works, proof.Exactly("refused", 1))), Seconds: 1, Run: oldSegmentArrives(GuardTimeWait)},
		{Arm: turning("tcp_timestamps", observe("time-stamps", "Time stamps alone", "net.ipv4.tcp_timestamps=1", proof.Works, proof.Exactly("older_stamps", 1))), Seconds: 1, Run: oldSegmentArrives(GuardTimeStamps)},
		{Arm: observe("clock", "The clock of initial sequence numbers alone", "the left host's number is the kernel's own", proof.Works), Seconds: 1, Run: oldSegmentArrives(GuardClock)},
		{Arm: observe("ack-beyond", "The check of the acknowledgement number alone", "the old segment acknowledges what was never sent", proof.Works), Seconds: 1, Run: oldSegmentArrives(GuardAckBeyond)},
		{Arm: observe("ack-too-old", "RFC 5961 alone", "the old segment acknowledges what is long past", proof.Works, proof.Exactly("challenges", 1)), Seconds: 1, Run: oldSegmentArrives(GuardAckTooOld)},
	},
}
