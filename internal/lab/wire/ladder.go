package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Ladder is what passed between two hosts, one rung for each segment.
type Ladder struct {
	Left, Right string
	Rungs       []Rung
	// Unrecorded is how many segments more there were.
	Unrecorded int
}

// Rung is one segment on its way.
type Rung struct {
	// At is the time since the wire was joined.
	At   time.Duration
	From Side
	// Label is the segment in words.
	Label string
	// Arrived is false where it was lost, or held on the wire.
	Arrived bool
	Note    string
}

// Ladder of what passed since a mark and matches: all of it, where the match is empty.
func (w *Wire) Ladder(since Mark, only Match) Ladder {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := Ladder{Left: w.ends[0].Name, Right: w.ends[1].Name, Unrecorded: w.unrecorded}
	for _, p := range w.passages[since:] {
		if only.matches(p.From, &p.Segment) {
			l.Rungs = append(l.Rungs, Rung{p.At, p.From, p.Segment.label(), p.Fate.arrived(), p.Note})
		}
	}
	return l
}

// label counts sequence numbers from those of the SYNs, so that they can be read.
func (s *Segment) label() string {
	label := s.Flags.String()
	if n := len(s.Payload); n > 0 {
		label = fmt.Sprintf("%d bytes", n)
		if extra := (s.Flags &^ (ACK | PSH)).String(); extra != "" {
			label += " " + extra
		}
	}
	label += fmt.Sprintf(" seq=%d", int32(s.SeqSinceSYN))
	if s.Flags&ACK != 0 {
		label += fmt.Sprintf(" ack=%d", int32(s.AckSinceSYN))
	}
	return label
}

// width is that of the space between the two hosts, in characters.
const width = 40

// String draws the ladder.
func (l Ladder) String() string {
	var b strings.Builder
	gap := max(1, width+2-utf8.RuneCountInString(l.Left)-utf8.RuneCountInString(l.Right))
	fmt.Fprintf(&b, "%10s  %s%s%s\n", "ms", l.Left, strings.Repeat(" ", gap), l.Right)
	var began time.Duration
	if len(l.Rungs) > 0 {
		began = l.Rungs[0].At
	}
	for _, r := range l.Rungs {
		line := fmt.Sprintf("%10.1f  |%s|", float64(r.At-began)/float64(time.Millisecond), r.arrow())
		if r.Note != "" {
			line += "  " + r.Note
		}
		b.WriteString(line + "\n")
	}
	if l.Unrecorded > 0 {
		fmt.Fprintf(&b, "%10s  and %d segments more\n", "", l.Unrecorded)
	}
	return b.String()
}

// arrow ends in an X half way where the segment does not arrive.
func (r Rung) arrow() string {
	label := " " + r.Label + " "
	length := width
	if !r.Arrived {
		length = width * 3 / 4
	}
	dashes := max(2, length-1-utf8.RuneCountInString(label))
	before := 2
	if r.From == Right {
		before = dashes - 2
	}
	before = max(1, before)
	line := strings.Repeat("-", before) + label + strings.Repeat("-", max(0, dashes-before))
	space := strings.Repeat(" ", max(0, width-length))
	switch {
	case r.From == Left && r.Arrived:
		return line + ">"
	case r.From == Left:
		return line + "X" + space
	case r.Arrived:
		return "<" + line
	default:
		return space + "X" + line
	}
}
