// Package wire joins two network namespaces by a pair of TUN devices and carries
// their packets in user space, where rules can delay, drop, duplicate, hold and
// replay chosen segments. It keeps what passed, for a ladder and a pcap file.
//
// What no rule names arrives once and in the order in which it was sent.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Side is an end of the wire.
type Side uint8

// The two ends.
const (
	Left Side = iota + 1
	Right
)

// Other is the end across.
func (s Side) Other() Side { return Left + Right - s }

func (s Side) index() int { return int(s - Left) }

// Options of a wire.
type Options struct {
	// MTU is in bytes, 0 for 1500. IPv6 needs 1280.
	MTU int
	// Pcap gets each packet as it arrives, nil for none.
	Pcap io.Writer
}

const (
	defaultMTU = 1500
	maxPacket  = 65535
	// maxPassages bounds what is kept: packets beyond pass and are only counted.
	maxPassages = 10_000
)

// Wire is a wire that carries, until Close.
type Wire struct {
	ends    [2]End
	files   [2]*os.File
	began   time.Time
	readers sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	failed     error
	capture    *capture
	rules      []*Rule
	flows      map[flow]*progress
	passages   []Passage
	unrecorded int
	passing    chan struct{} // closed when something has passed
	timers     map[*time.Timer]struct{}
}

// Passage is one segment on its way.
type Passage struct {
	// At is the time since the wire was joined.
	At      time.Duration
	From    Side
	Segment Segment
	Fate    Fate
	Note    string
}

// Fate is what the wire did with a segment.
type Fate uint8

// A segment that is delayed has a passage when it is sent, and is Arrived in another
// one when it arrives.
const (
	Arrived Fate = iota
	Dropped
	Delayed
	Held
)

func (f Fate) arrived() bool { return f == Arrived }

// Mark is a place in what passed: 0 is the beginning.
type Mark int

// flow is one direction of a connection.
type flow struct{ src, dst netip.AddrPort }

func (f flow) back() flow { return flow{f.dst, f.src} }

// progress is what the wire knows of a flow.
type progress struct {
	initial, next uint32 // next is beyond all that was sent
	ended         bool
	fin           uint32 // what acknowledges the FIN
}

// Join makes a device in each namespace and carries between them. It needs
// CAP_NET_ADMIN there. Where the host has no TUN devices the error wraps
// errors.ErrUnsupported.
func Join(left, right End, o Options) (*Wire, error) {
	w := &Wire{
		ends: [2]End{left, right}, began: time.Now(), flows: map[flow]*progress{},
		passing: make(chan struct{}), timers: map[*time.Timer]struct{}{},
	}
	if o.Pcap != nil {
		w.capture = newCapture(o.Pcap)
	}
	mtu := o.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	for i, e := range w.ends {
		f, err := e.plug(mtu)
		if err != nil {
			if i > 0 {
				err = errors.Join(err, w.files[0].Close())
			}
			return nil, fmt.Errorf("join %s and %s: at %s: %w", left.Name, right.Name, e.Name, err)
		}
		w.files[i] = f
	}
	for _, side := range []Side{Left, Right} {
		w.readers.Go(func() { w.carry(side) })
	}
	return w, nil
}

// Close takes the devices away. It returns what went wrong while the wire carried.
func (w *Wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	for t := range w.timers {
		t.Stop()
	}
	err := w.failed
	if w.capture != nil && w.capture.err != nil {
		err = errors.Join(err, fmt.Errorf("write pcap: %w", w.capture.err))
	}
	w.mu.Unlock()
	err = errors.Join(err, w.files[0].Close(), w.files[1].Close())
	w.readers.Wait()
	return err
}

// overflowed is how many packets were lost because they came faster than the wire
// carries: where it is not 0, the wire was not exact.
func (w *Wire) overflowed() (uint64, error) {
	left, err := w.ends[0].overflowed()
	if err != nil {
		return 0, err
	}
	right, err := w.ends[1].overflowed()
	return left + right, err
}

// SetRules puts rules in the place of those before, and counts from the beginning.
func (w *Wire) SetRules(rules ...Rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = w.rules[:0]
	for _, r := range rules {
		r.seen = 0
		w.rules = append(w.rules, &r)
	}
}

// carry reads what one end sends. One packet is delivered before the next is read,
// so that a queue forms where it belongs: in the sender's kernel.
func (w *Wire) carry(from Side) {
	buffer := make([]byte, maxPacket)
	for {
		n, err := w.files[from.index()].Read(buffer)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.fail(fmt.Errorf("read at %s: %w", w.ends[from.index()].Name, err))
			}
			return
		}
		w.pass(from, append([]byte(nil), buffer[:n]...))
	}
}

func (w *Wire) pass(from Side, packet []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := parse(packet)
	if err != nil {
		// ICMP and the like pass, and are in no ladder.
		w.deliver(from, packet)
		return
	}
	w.follow(&s)
	rule := &Rule{}
	for _, r := range w.rules {
		if r.names(from, &s) {
			rule = r
			break
		}
	}
	if rule.Edit != nil {
		rule.Edit(&s)
	}
	switch rule.Action {
	case Pass:
		w.deliver(from, s.raw)
		w.record(from, s, Arrived, rule.Note)
	case Drop:
		w.record(from, s, Dropped, orElse(rule.Note, "lost"))
	case Duplicate:
		w.deliver(from, s.raw)
		w.record(from, s, Arrived, "")
		w.deliver(from, s.raw)
		w.record(from, s, Arrived, orElse(rule.Note, "the same, a second time"))
	case Delay:
		w.record(from, s, Delayed, orElse(rule.Note, "delayed by "+rule.Delay.String()))
		w.later(rule.Delay, func() {
			w.deliver(from, s.raw)
			w.record(from, s, Arrived, "arrives "+rule.Delay.String()+" late")
		})
	case Hold:
		w.record(from, s, Held, orElse(rule.Note, "held on the way"))
	}
}

func orElse(note, other string) string {
	if note == "" {
		return other
	}
	return note
}

// later runs do under the lock, unless the wire is closed by then.
func (w *Wire) later(delay time.Duration, do func()) {
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.timers, t)
		if !w.closed {
			do()
		}
	})
	w.timers[t] = struct{}{}
}

// Send puts a packet on the wire as if one end had sent it: one that was held, one
// that arrived before, or one from Build. No rule sees it.
func (w *Wire) Send(from Side, packet []byte, note string) error {
	packet = append([]byte(nil), packet...)
	s, err := parse(packet)
	if err != nil {
		return fmt.Errorf("send from %s: %w", w.ends[from.index()].Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("send from %s: %w", w.ends[from.index()].Name, os.ErrClosed)
	}
	w.relate(&s)
	w.deliver(from, packet)
	w.record(from, s, Arrived, note)
	return nil
}

// deliver gives a packet to the other end, whose kernel takes it in the same call.
func (w *Wire) deliver(from Side, packet []byte) {
	if w.closed {
		return
	}
	if w.capture != nil {
		w.capture.packet(time.Now(), packet)
	}
	to := from.Other().index()
	if _, err := w.files[to].Write(packet); err != nil && !errors.Is(err, os.ErrClosed) {
		w.failed = errors.Join(w.failed, fmt.Errorf("deliver to %s: %w", w.ends[to].Name, err))
	}
}

func (w *Wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.failed = errors.Join(w.failed, err)
	}
}

func (w *Wire) record(from Side, s Segment, fate Fate, note string) {
	if len(w.passages) == maxPassages {
		w.unrecorded++
	} else {
		w.passages = append(w.passages, Passage{time.Since(w.began), from, s, fate, note})
	}
	close(w.passing)
	w.passing = make(chan struct{})
}

// follow takes note of a segment that a kernel sent, and tells its relation to those
// before.
func (w *Wire) follow(s *Segment) {
	f := flow{s.Src, s.Dst}
	p := w.flows[f]
	if p == nil || s.Flags&SYN != 0 && s.Seq != p.initial {
		p = &progress{initial: s.Seq, next: s.Seq}
		w.flows[f] = p
	}
	end := s.Seq + s.length()
	s.Again = s.length() > 0 && !after(end, p.next)
	if after(end, p.next) && s.Flags&RST == 0 {
		p.next = end
	}
	if s.Flags&FIN != 0 {
		p.ended, p.fin = true, end
	}
	w.relate(s)
}

// relate counts a segment's numbers from those of the SYNs.
func (w *Wire) relate(s *Segment) {
	f := flow{s.Src, s.Dst}
	if p := w.flows[f]; p != nil {
		s.SeqSinceSYN = s.Seq - p.initial
	}
	if p := w.flows[f.back()]; p != nil && s.Flags&ACK != 0 {
		s.AckSinceSYN = s.Ack - p.initial
		s.AcksFIN = p.ended && s.Ack == p.fin
	}
}

// after compares sequence numbers, which wrap around.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// Now is the mark before what passes next.
func (w *Wire) Now() Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Mark(len(w.passages))
}

// Passed are the segments since a mark, in their order.
func (w *Wire) Passed(since Mark) []Passage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Passage(nil), w.passages[since:]...)
}

// Count is how many segments since a mark match, Nth left aside.
func (w *Wire) Count(since Mark, m Match) int {
	n := 0
	for _, p := range w.Passed(since) {
		if m.matches(p.From, &p.Segment) {
			n++
		}
	}
	return n
}

// Await waits for a segment that matches, the Nth since a mark.
func (w *Wire) Await(ctx context.Context, since Mark, m Match) (Passage, error) {
	for {
		w.mu.Lock()
		passing, seen := w.passing, 0
		for _, p := range w.passages[since:] {
			if m.matches(p.From, &p.Segment) {
				if seen++; seen >= m.Nth {
					w.mu.Unlock()
					return p, nil
				}
			}
		}
		w.mu.Unlock()
		select {
		case <-passing:
		case <-ctx.Done():
			return Passage{}, fmt.Errorf("wait for a segment on the wire: %w", context.Cause(ctx))
		}
	}
}

// Quiet waits until nothing has passed for so long.
func (w *Wire) Quiet(ctx context.Context, silence time.Duration) error {
	for {
		w.mu.Lock()
		passing := w.passing
		w.mu.Unlock()
		select {
		case <-passing:
		case <-time.After(silence):
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a quiet wire: %w", context.Cause(ctx))
		}
	}
}
