package render

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"linger/internal/snapshot"
	"linger/internal/story"
)

// SocketList writes sockets one by one, as they are read. Begin comes first, End last.
type SocketList interface {
	Begin(takenAt time.Time) error
	Socket(s *snapshot.Socket) error
	End(gaps []snapshot.Gap, elapsed time.Duration) error
}

// SocketListJSON writes a document with one socket to a line.
func SocketListJSON(w io.Writer) SocketList { return &listJSON{stream: newStream(w)} }

type listJSON struct{ stream *stream }

func (j *listJSON) Begin(takenAt time.Time) error {
	s := j.stream
	s.raw("{")
	s.first = true
	s.member("schema", SocketsSchema)
	s.member("taken_at", takenAt)
	s.name("sockets")
	s.raw("[")
	s.first = true
	return s.err
}

func (j *listJSON) Socket(socket *snapshot.Socket) error {
	j.stream.element(socket)
	return j.stream.err
}

func (j *listJSON) End(gaps []snapshot.Gap, elapsed time.Duration) error {
	s := j.stream
	s.raw("]")
	s.first = false
	s.member("elapsed_ms", elapsed.Milliseconds())
	elements(s, "gaps", gaps)
	s.raw("}")
	return s.end()
}

// SocketListCSV writes a line of names, then one for each socket.
func SocketListCSV(w io.Writer) SocketList { return &listCSV{csv.NewWriter(w)} }

type listCSV struct{ out *csv.Writer }

func (c *listCSV) Begin(time.Time) error {
	return c.out.Write([]string{
		"netns", "netns_inode", "state", "role", "local", "remote", "owner", "owner_pid", "shared",
		"timer", "timer_ms", "receive_queue", "send_queue", "cookie",
	})
}

func (c *listCSV) Socket(s *snapshot.Socket) error {
	process, pid := "", ""
	if s.Owner != nil {
		process, pid = s.Owner.Process, strconv.Itoa(s.Owner.PID)
	}
	decimal := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return c.out.Write(harmless([]string{
		s.Netns, decimal(s.Inode), s.State, string(s.Role), s.Local.String(), s.Remote.String(), process, pid, strconv.Itoa(s.Shared),
		s.Timer, decimal(uint64(s.TimerMS)), decimal(uint64(s.ReceiveQueue)), decimal(uint64(s.SendQueue)), decimal(s.Cookie),
	}))
}

func (c *listCSV) End([]snapshot.Gap, time.Duration) error {
	c.out.Flush()
	return c.out.Error()
}

// SocketListText writes a line for each socket. The columns have a width from the
// start, since the longest entry is not known before the end; what is longer is not cut.
func SocketListText(w io.Writer, style Style) SocketList {
	return &listText{out: newStream(w), style: style}
}

type listText struct {
	out     *stream // as a buffer whose first error is kept
	style   Style
	sockets int
}

const socketColumns = "%-19s %-28s %-28s %-20s %8v %8v %-18s %8v  %s"

func (t *listText) line(cells []any) error {
	t.out.raw(strings.TrimRight(fmt.Sprintf(socketColumns, cells...), " ") + "\n")
	return t.out.err
}

func (t *listText) Begin(time.Time) error {
	var cells []any
	for _, name := range story.SocketColumns {
		cells = append(cells, name)
	}
	return t.line(cells)
}

func (t *listText) Socket(s *snapshot.Socket) error {
	t.sockets++
	var cells []any
	for _, cell := range story.SocketRow(s) {
		cells = append(cells, t.style.show(cell))
	}
	return t.line(cells)
}

func (t *listText) End(gaps []snapshot.Gap, took time.Duration) error {
	b := &block{style: t.style}
	b.foot(story.SocketsEnd(t.sockets, gaps, took))
	t.out.raw(strings.Join(b.lines, "\n"))
	return t.out.end()
}
