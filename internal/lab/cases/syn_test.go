package cases

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/tcp"
)

// answer is what a SYN led to that arrived at a TIME_WAIT socket.
type answer struct {
	flags     wire.Flags // of what came back; 0 is nothing
	gone      bool       // the TIME_WAIT socket
	restarted bool       // its minute
	refused   int
	skipped   int // TCPACKSkippedTimeWait
}

// Each row of what the kernel does with a SYN that arrives at a TIME_WAIT socket
// (net/ipv4/tcp_minisocks.c, tcp_timewait_state_process). The socket is real; the SYN
// is put on the wire by hand, and what the server sends to it never arrives.
func TestSYNOnTimeWait(t *testing.T) {
	t.Parallel()
	const before, beyond = -1000, 1000 // of the next byte that the old connection expects
	stamp := func(ms int) *int { return &ms }
	for _, c := range []struct {
		name string
		// sequence is relative to rcv_nxt, stamp to the last one, nil for none.
		sequence     int
		stamp        *int
		repeat       bool
		listenerGone bool
		want         answer
	}{
		{"newer time stamp, higher number", beyond, stamp(5000), false, false, answer{flags: wire.SYN | wire.ACK, gone: true}},
		{"newer time stamp, lower number", before, stamp(5000), false, false, answer{flags: wire.SYN | wire.ACK, gone: true}},
		{"no time stamp, higher number", beyond, nil, false, false, answer{flags: wire.SYN | wire.ACK, gone: true}},
		{"older time stamp, higher number", beyond, stamp(-5000), false, false,
			answer{flags: wire.ACK, restarted: true, refused: 1}},
		{"older time stamp, lower number", before, stamp(-5000), false, false,
			answer{flags: wire.ACK, restarted: true, refused: 1}},
		{"no time stamp, lower number", before, nil, false, false, answer{flags: wire.ACK}},
		{"the next byte itself, no time stamp", 0, nil, false, false, answer{flags: wire.ACK}},
		{"no time stamp, lower number, again within half a second", before, nil, true, false, answer{skipped: 1}},
		{"acceptable, but the listener has gone", beyond, nil, false, true, answer{flags: wire.ACK}},
	} {
		family4and6(t, c.name, func(t *testing.T, ipv6 bool) {
			got := measured(t, func(ctx context.Context) (answer, error) {
				s, err := newOldConnection(ctx, ipv6, c.listenerGone)
				if err != nil {
					return answer{}, err
				}
				defer s.close()
				syn := s.syn(c.sequence, c.stamp)
				if c.repeat {
					if _, err := s.send(ctx, syn); err != nil {
						return answer{}, err
					}
				}
				return s.send(ctx, syn)
			})
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// oldConnection is one that the server holds in TIME_WAIT, and that the client has
// forgotten.
type oldConnection struct {
	topology *stage.Topology
	wire     *wire.Wire
	server   *stage.Node
	listener *stage.Socket
	last     wire.Segment // the client's FIN
}

func newOldConnection(ctx context.Context, ipv6, listenerGone bool) (*oldConnection, error) {
	t, w, err := stage.NewWired(stage.Wiring{IPv6: ipv6}, "client", "server")
	if err != nil {
		return nil, err
	}
	s := &oldConnection{topology: t, wire: w, server: t.Nodes[1]}
	if err := s.open(ctx, ipv6); err != nil {
		s.close()
		return nil, err
	}
	if listenerGone {
		s.listener.Close()
	}
	return s, nil
}

func (s *oldConnection) open(ctx context.Context, ipv6 bool) (err error) {
	from, to := wirePorts(s.topology.Nodes[0], s.server, ipv6)
	if s.listener, err = s.server.Listener(to); err != nil {
		return err
	}
	near, err := s.topology.Nodes[0].Socket(from)
	if err != nil {
		return err
	}
	defer near.Close()
	if err := near.Connect(ctx, to); err != nil {
		return err
	}
	far, err := s.listener.Accept(ctx)
	if err != nil {
		return err
	}
	far.Close()
	if err := near.ReadEnd(ctx); err != nil {
		return err
	}
	near.Close()
	if _, err := s.wire.Await(ctx, 0, wire.Match{From: wire.Right, Sequence: wire.AcksFIN}); err != nil {
		return err
	}
	p, err := s.wire.Await(ctx, 0, wire.Match{From: wire.Left, Has: wire.FIN})
	if err != nil {
		return err
	}
	s.last = p.Segment
	s.wire.SetRules(wire.Rule{Match: wire.Match{From: wire.Right}, Action: wire.Drop})
	return nil
}

func (s *oldConnection) close() {
	if s.listener != nil {
		s.listener.Close()
	}
	s.topology.Close()
}

// syn is one of the same four numbers: the client's FIN with another header. Linux puts its
// time stamps behind two bytes of padding, and nothing behind them.
func (s *oldConnection) syn(sequence int, stamp *int) []byte {
	packet := bytes.Clone(s.last.Packet())
	segment := packet[len(packet)-32:]
	numbers := binary.BigEndian.AppendUint32(nil, s.last.Seq+1+uint32(int32(sequence)))
	numbers = append(numbers, 0, 0, 0, 0) // nothing is acknowledged
	rewrite(segment, 4, append(numbers, segment[12], byte(wire.SYN)))
	options := bytes.Repeat([]byte{1}, 12) // padding
	if stamp != nil {
		options = binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, s.last.TimeStamps.Value+uint32(int32(*stamp)))
		options = append(options, 0, 0, 0, 0)
	}
	rewrite(segment, 20, options)
	return packet
}

// rewrite puts other bytes into a TCP header, whose checksum stays right (RFC 1624).
func rewrite(header []byte, at int, with []byte) {
	sum := uint64(^binary.BigEndian.Uint16(header[16:]))
	for i := 0; i < len(with); i += 2 {
		sum += uint64(^binary.BigEndian.Uint16(header[at+i:])) + uint64(binary.BigEndian.Uint16(with[i:]))
	}
	copy(header[at:], with)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[16:], ^uint16(sum))
}

// send has a SYN arrive once the minute of TIME_WAIT has visibly begun, and tells what
// came of it.
func (s *oldConnection) send(ctx context.Context, syn []byte) (a answer, err error) {
	const visibly = 300 * time.Millisecond
	var left time.Duration
	for left = time.Hour; left > time.Minute-visibly; stage.Sleep(ctx, 5*time.Millisecond) {
		var held bool
		if left, held, err = s.timeWait(ctx); err != nil {
			return a, err
		}
		if !held {
			return a, fmt.Errorf("the server holds no TIME_WAIT")
		}
		if ctx.Err() != nil {
			return a, os.ErrDeadlineExceeded
		}
	}
	before, err := s.server.Counters()
	if err != nil {
		return a, err
	}
	since := s.wire.Now()
	// The kernel has dealt with it when Send returns.
	if err := s.wire.Send(wire.Left, syn, ""); err != nil {
		return a, err
	}
	after, err := s.server.Counters()
	if err != nil {
		return a, err
	}
	rest, held, err := s.timeWait(ctx)
	if err != nil {
		return a, err
	}
	a.gone, a.restarted = !held, held && rest > left
	a.refused = refusedSYNs(before, after)
	a.skipped = rise(before, after, "TcpExtTCPACKSkippedTimeWait")
	if a.skipped > 0 {
		return a, nil
	}
	p, err := s.wire.Await(ctx, since, wire.Match{From: wire.Right})
	a.flags = p.Segment.Flags
	return a, err
}

// timeWait is what is left of the TIME_WAIT socket's minute.
func (s *oldConnection) timeWait(ctx context.Context) (left time.Duration, held bool, err error) {
	err = s.server.Each(ctx, func(row *tcp.Socket) {
		if netip.AddrPortFrom(row.Remote.Netip(), row.RemotePort) == s.last.Src {
			left, held = time.Duration(row.Expires)*time.Millisecond, true
		}
	}, tcp.TimeWait)
	return left, held, err
}
