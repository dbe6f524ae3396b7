package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/proof"
	"linger/internal/setting"
)

var whyOldSegment = Case{Experiments: []lab.Experiment{whyOldSegmentProof}}

// guard is what keeps a segment of a closed connection out of a new one with the same
// four numbers.
type guard string

// The guards, each with all others out of the way, and none.
//
//   - guardTimeWait: there is no new connection while TIME_WAIT stands.
//   - guardTimeStamps: the old segment's time stamp is older (PAWS, RFC 7323, 5).
//   - guardClock: the initial sequence numbers follow a clock, so that the old segment's
//     is no longer in the window (RFC 9293, 3.4.1).
//   - guardAckBeyond: it acknowledges what was never sent (RFC 9293, 3.10.7.4).
//   - guardAckTooOld: it acknowledges what was acknowledged more than a window ago
//     (RFC 5961, 5.2).
const (
	guardTimeWait   guard = "TIME_WAIT"
	guardTimeStamps guard = "time stamps"
	guardClock      guard = "clock of the initial sequence number"
	guardAckBeyond  guard = "acknowledgement of what was not sent"
	guardAckTooOld  guard = "acknowledgement that is too old"
	noGuard         guard = "none"
)

// The bytes of the two connections: as long as each other, and told apart at each place.
var (
	oldBytes = []byte("old.old.old.old.")
	newBytes = []byte("NEW!NEW!NEW!NEW!")
)

// replayed is what became of the old segment.
type replayed struct {
	// refused is why there was no new connection, nil if there was one.
	refused error
	// delivered is what the receiver's program read in the new connection; corrupted is
	// how many bytes of it are not those that the sender's program wrote there.
	delivered []byte
	corrupted int
	// olderStamps and challenges are what the receiver's kernel counted at the old
	// segment, as PAWSEstab and TCPChallengeACK. answered tells that it answered at once.
	olderStamps, challenges int
	answered                bool
	ladder                  wire.Ladder
}

// measureOldSegment lets one of the left host's segments be held up on the wire. TCP
// sends it again, the connection ends in order, a new one begins with the same four
// numbers, and the old segment arrives.
//
// Both hosts connect to each other at once (RFC 9293, 3.5: a simultaneous open), so
// that TCP_REPAIR can choose both initial sequence numbers. Natural ones meet once in
// 2³², and the experiment cannot wait for that.
func measureOldSegment(ctx context.Context, on stage.Wiring, guard guard) (result replayed, err error) {
	t, w, err := stage.NewWired(on, "left", "right")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	e := oldSegment{w: w, left: t.Nodes[0], right: t.Nodes[1], ipv6: on.IPv6}
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
	result.ladder = w.Ladder(0, wire.Match{})
	return result, nil
}

type oldSegment struct {
	w           *wire.Wire
	left, right *stage.Node
	ipv6        bool
}

// disarm takes the guards away that settings govern, but for one.
func (e *oldSegment) disarm(guard guard) error {
	for _, n := range []*stage.Node{e.left, e.right} {
		if guard != guardTimeStamps {
			if err := n.Set(setting.Timestamps, "0"); err != nil {
				return err
			}
		}
		if guard != guardTimeWait {
			// No time-wait socket is made at all.
			if err := n.Set(setting.MaxTWBuckets, "0"); err != nil {
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
	defer left.Close()
	defer right.Close()
	isOld := wire.Match{From: wire.Left, Payload: oldBytes, Nth: 1}
	e.w.SetRules(
		wire.Rule{Match: isOld, Action: wire.Hold, Note: "held up on the way"},
		wire.Rule{Match: wire.Match{Payload: oldBytes}, Note: "sent again"},
	)
	since := e.w.Now()
	if err := left.Write(oldBytes); err != nil {
		return held, err
	}
	if _, err := readAll(ctx, right, len(oldBytes)); err != nil { // TCP has sent it again
		return held, err
	}
	if held, err = e.w.Await(ctx, since, isOld); err != nil {
		return held, err
	}
	// Half closes, since an orphan in FIN_WAIT2 needs a time-wait socket too.
	if err := right.Finish(); err != nil {
		return held, err
	}
	if err := left.ReadEnd(ctx); err != nil {
		return held, err
	}
	if err := left.Finish(); err != nil {
		return held, err
	}
	return held, errors.Join(left.Gone(ctx), right.Gone(ctx))
}

// second is the connection that the old segment arrives in.
func (e *oldSegment) second(ctx context.Context, guard guard, held wire.Passage, result *replayed) error {
	left, right, err := e.meet(ctx, numbers(guard, held.Segment))
	if err != nil {
		if guard != guardTimeWait {
			return err
		}
		result.refused = err
		return e.replay(ctx, held, result)
	}
	defer left.Close()
	defer right.Close()
	if err := e.replay(ctx, held, result); err != nil {
		return err
	}
	e.w.SetRules(wire.Rule{Match: wire.Match{Payload: newBytes}, Note: "the new connection's own bytes"})
	since := e.w.Now()
	if err := left.Write(newBytes); err != nil {
		return err
	}
	if result.delivered, err = readAll(ctx, right, len(newBytes)); err != nil {
		return err
	}
	for i, b := range result.delivered {
		if b != newBytes[i] {
			result.corrupted++
		}
	}
	// The sender is told that its bytes have arrived, whichever did.
	_, err = e.w.Await(ctx, since, wire.Match{From: wire.Right, Where: func(s *wire.Segment) bool {
		return s.AckSinceSYN == uint32(1+len(newBytes))
	}})
	return err
}

// replay has the old segment arrive, and waits for the answer if there is one.
func (e *oldSegment) replay(ctx context.Context, held wire.Passage, result *replayed) error {
	before, err := e.right.Counters()
	if err != nil {
		return err
	}
	since := e.w.Now()
	// The kernel has dealt with it when Send returns.
	if err := e.w.Send(wire.Left, held.Segment.Packet(), "the old segment arrives"); err != nil {
		return err
	}
	after, err := e.right.Counters()
	if err != nil {
		return err
	}
	result.olderStamps = rise(before, after, "TcpExtPAWSEstab")
	result.challenges = rise(before, after, "TcpExtTCPChallengeACK")
	result.answered = rise(before, after, "TcpOutSegs") > 0
	if result.answered {
		_, err = e.w.Await(ctx, since, wire.Match{From: wire.Right})
	}
	return err
}

// sequences are the initial sequence numbers of both hosts, 0 for the clock's.
type sequences struct{ left, right uint32 }

// numbers have the old segment meet the new connection: it begins at the next byte that
// the right host expects, and acknowledges the last that it sent.
func numbers(guard guard, old wire.Segment) sequences {
	meeting := sequences{left: old.Seq - 1, right: old.Ack - 1}
	switch guard {
	case guardClock:
		meeting.left = 0
	case guardAckBeyond:
		meeting.right -= 100_000
	case guardAckTooOld:
		meeting.right = 0
	}
	return meeting
}

// meet opens a connection from both sides at once: the wire holds the SYNs until both
// are on their way.
func (e *oldSegment) meet(ctx context.Context, at sequences) (left, right *stage.Socket, err error) {
	leftEnd, rightEnd := wirePorts(e.left, e.right, e.ipv6)
	if left, err = e.left.Socket(leftEnd); err != nil {
		return nil, nil, err
	}
	if right, err = e.right.Socket(rightEnd); err != nil {
		left.Close()
		return nil, nil, err
	}
	if err := e.cross(ctx, left, right, at); err != nil {
		left.Close()
		right.Close()
		return nil, nil, err
	}
	return left, right, nil
}

// cross connects the two sockets to each other.
func (e *oldSegment) cross(ctx context.Context, left, right *stage.Socket, at sequences) error {
	if at.left != 0 {
		if err := left.BeginAt(at.left); err != nil {
			return err
		}
	}
	if at.right != 0 {
		if err := right.BeginAt(at.right); err != nil {
			return err
		}
	}
	syn := wire.Match{Has: wire.SYN, Lacks: wire.ACK}
	e.w.SetRules(wire.Rule{Match: syn, Action: wire.Hold, Note: "waits for the other SYN"})
	since := e.w.Now()
	leftEnd, rightEnd := wirePorts(e.left, e.right, e.ipv6)
	// The right one first: it is where TIME_WAIT may stand.
	if err := right.Begin(leftEnd); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := left.Begin(rightEnd); err != nil {
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
	if err := errors.Join(left.Established(ctx), right.Established(ctx)); err != nil {
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
func readAll(ctx context.Context, s *stage.Socket, size int) ([]byte, error) {
	got := make([]byte, 0, size)
	for len(got) < size {
		some, err := s.Read(ctx, size-len(got))
		if err != nil {
			return got, err
		}
		got = append(got, some...)
	}
	return got, nil
}

func oldSegmentArrives(guard guard) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		r, err := measureOldSegment(ctx, t.Wiring(), guard)
		if err != nil {
			return err
		}
		t.Record("corrupted", float64(r.corrupted))
		t.Record("refused", oneIf(r.refused != nil))
		t.Record("older_stamps", float64(r.olderStamps))
		t.Record("challenges", float64(r.challenges))
		t.Draw(ladderOf("The old segment arrives; guard: "+string(guard), r.ladder))
		return nil
	}
}

var whyOldSegmentProof = lab.Experiment{
	Name:     "why-old-segment",
	Title:    "The second reason for TIME_WAIT: old segments must die first",
	Question: "A segment of a closed connection arrives in a new one with the same four numbers. What keeps its bytes out?",
	Setup: "two hosts on a wire that holds a segment of 16 bytes until the next connection; initial sequence numbers chosen by " +
		"TCP_REPAIR, since the clock's own meet once in 2^32",
	Load:  lab.Waits,
	Wired: true,
	Quantities: []proof.Quantity{
		{Name: "corrupted", Title: "bytes read that were not sent in that connection", Unit: "bytes", Better: proof.Less},
		{Name: "refused", Title: "new connections refused (EADDRNOTAVAIL)", Unit: "connections"},
		{Name: "older_stamps", Title: "segments refused by their time stamp (PAWSEstab)", Unit: "segments"},
		{Name: "challenges", Title: "challenge ACKs (TCPChallengeACK)", Unit: "segments"},
	},
	Arms: []lab.Arm{
		{Arm: base("all guards out of the way", proof.Exactly("corrupted", 16)), Seconds: 1, Run: oldSegmentArrives(noGuard)},
		{
			Arm:     observe("ipv6", "The same over IPv6", "IPv6 addresses", proof.NoEffect, proof.Exactly("corrupted", 16)),
			Seconds: 1, Run: lab.OverIPv6(oldSegmentArrives(noGuard)),
		},
		{
			Arm: turning("tcp_max_tw_buckets", observe("time-wait", "TIME_WAIT alone", "net.ipv4.tcp_max_tw_buckets as it is", proof.Works,
				proof.Exactly("refused", 1))),
			Seconds: 1, Run: oldSegmentArrives(guardTimeWait),
		},
		{
			Arm: turning("tcp_timestamps", observe("time-stamps", "Time stamps alone", "net.ipv4.tcp_timestamps=1", proof.Works,
				proof.Exactly("older_stamps", 1))),
			Seconds: 1, Run: oldSegmentArrives(guardTimeStamps),
		},
		{
			Arm: observe("clock", "The clock of initial sequence numbers alone",
				"the left host's number is the kernel's own", proof.Works),
			Seconds: 1, Run: oldSegmentArrives(guardClock),
		},
		{
			Arm: observe("ack-beyond", "The check of the acknowledgement number alone",
				"the old segment acknowledges what was never sent", proof.Works),
			Seconds: 1, Run: oldSegmentArrives(guardAckBeyond),
		},
		{
			Arm: observe("ack-too-old", "RFC 5961 alone", "the old segment acknowledges what is long past", proof.Works,
				proof.Exactly("challenges", 1)),
			Seconds: 1, Run: oldSegmentArrives(guardAckTooOld),
		},
	},
}
