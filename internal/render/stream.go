package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
)

// stream writes one JSON document piece by piece. encoding/json holds a whole
// value in memory before it writes the first byte; here the largest piece is one
// element of an array, whatever the size of the document. Each element stands on
// a line of its own. The first error ends all writing and is kept.
type stream struct {
	out *bufio.Writer
	// enc writes into piece, so that one piece of memory serves all elements.
	enc   *json.Encoder
	piece bytes.Buffer
	// first is true right after an opening bracket.
	first bool
	err   error
}

// newEncoder writes text as it is: no answer of linger is put into HTML unescaped.
func newEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

func newStream(w io.Writer) *stream {
	s := &stream{out: bufio.NewWriterSize(w, 64<<10)}
	s.enc = newEncoder(&s.piece)
	return s
}

func (s *stream) raw(text string) {
	if s.err == nil {
		_, s.err = s.out.WriteString(text)
	}
}

// separate writes the comma that must stand before all but the first member.
func (s *stream) separate() {
	if !s.first {
		s.raw(",")
	}
	s.first = false
	s.raw("\n")
}

func (s *stream) value(v any) {
	if s.err != nil {
		return
	}
	s.piece.Reset()
	if s.err = s.enc.Encode(v); s.err == nil {
		_, s.err = s.out.Write(bytes.TrimSuffix(s.piece.Bytes(), []byte("\n")))
	}
}

// object writes an object whose members body writes.
func (s *stream) object(body func()) { s.nest("{", "}", body) }

// array writes an array whose elements body writes.
func (s *stream) array(body func()) { s.nest("[", "]", body) }

func (s *stream) nest(open, shut string, body func()) {
	s.raw(open)
	s.first = true
	body()
	s.first = false
	s.raw(shut)
}

// name writes the name of an object's member, to be followed by its value.
func (s *stream) name(name string) {
	s.separate()
	s.value(name)
	s.raw(":")
}

// member writes a member of an object.
func (s *stream) member(name string, v any) {
	s.name(name)
	s.value(v)
}

// element writes an element of an array.
func (s *stream) element(v any) {
	s.separate()
	s.value(v)
}

// end writes the last new line and returns the first error of all.
func (s *stream) end() error {
	s.raw("\n")
	if s.err == nil {
		s.err = s.out.Flush()
	}
	return s.err
}

// elements writes a named array, one element of items after the other.
func elements[T any](s *stream, name string, items []T) {
	s.name(name)
	s.array(func() {
		for _, item := range items {
			s.element(item)
		}
	})
}
