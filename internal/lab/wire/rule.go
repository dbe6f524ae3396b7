package wire

import (
	"bytes"
	"net/netip"
	"time"
)

// Match names segments. What is zero is not asked for.
type Match struct {
	From Side
	// Has must all be set, Lacks none of them.
	Has, Lacks Flags
	Src, Dst   netip.AddrPort
	// Payload is part of what it carries. Empty asks for a segment without bytes.
	Payload []byte
	Empty   bool
	// Sequence is its relation to what was sent before.
	Sequence Relation
	// Where is asked last. The wire stands still meanwhile: it must not call the wire.
	Where func(*Segment) bool
	// Nth picks one of those that match all the rest, counted from 1.
	Nth int
}

// Relation is that of a segment to those before it.
type Relation uint8

// Fresh segments carry something that was not sent before, segments sent Again do
// not. AcksFIN are those that acknowledge the other side's FIN.
const (
	Fresh Relation = iota + 1
	Again
	AcksFIN
)

// matches leaves Nth to who counts.
func (m *Match) matches(from Side, s *Segment) bool {
	switch {
	case m.From != 0 && m.From != from,
		s.Flags&m.Has != m.Has,
		s.Flags&m.Lacks != 0,
		m.Src.IsValid() && m.Src != s.Src,
		m.Dst.IsValid() && m.Dst != s.Dst,
		len(m.Payload) > 0 && !bytes.Contains(s.Payload, m.Payload),
		m.Empty && len(s.Payload) > 0,
		m.Sequence == Fresh && (s.Again || s.length() == 0),
		m.Sequence == Again && !s.Again,
		m.Sequence == AcksFIN && !s.AcksFIN:
		return false
	}
	return m.Where == nil || m.Where(s)
}

// Rule says what happens to segments that it names. The first rule that does
// decides; what no rule names passes.
type Rule struct {
	Match
	Action Action
	// Delay is that of the action Delay.
	Delay time.Duration
	// Edit changes the segment before it goes on, whatever the action.
	Edit func(*Segment)
	// Note is what the ladder says of it, in place of the action's own words.
	Note string

	seen int
}

// Action is what happens to a segment.
type Action uint8

// Pass: as without a rule. Drop: it never arrives. Duplicate: it arrives twice.
// Delay: it arrives later, and others overtake it. Hold: it stays on the wire until
// Send.
const (
	Pass Action = iota
	Drop
	Duplicate
	Delay
	Hold
)

// names tells whether the rule is for this segment, and counts.
func (r *Rule) names(from Side, s *Segment) bool {
	if !r.matches(from, s) {
		return false
	}
	r.seen++
	return r.Nth == 0 || r.Nth == r.seen
}
