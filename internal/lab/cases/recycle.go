package cases

import (
	"net/netip"
	"time"

	"linger/internal/lab/wire"
)

// recycle is an emulation, in user space, of what tcp_tw_recycle=1 did to new
// connections in kernels before 4.12: tcp_peer_is_proven() of net/ipv4/tcp_metrics.c,
// called by tcp_conn_request(). It stands in front of a real server, on the wire. The
// shorter TIME_WAIT of that setting is no part of it.
type recycle struct {
	service netip.AddrPort
	// closing are the clients to which the server has sent its FIN.
	closing map[netip.AddrPort]bool
	// last is what the kernel kept for each remote address.
	last map[netip.Addr]lastStamp
}

// lastStamp is the time stamp of the last segment of a connection that went into
// TIME_WAIT, and when that was.
type lastStamp struct {
	value uint32
	at    time.Time
}

// TCP_PAWS_MSL and TCP_PAWS_WINDOW of include/net/tcp.h: seconds, and ticks of the
// time stamps.
const (
	recycleMemory = 60 * time.Second
	recycleWindow = 1
)

func newRecycle(service netip.AddrPort) *recycle {
	return &recycle{service: service, closing: map[netip.AddrPort]bool{}, last: map[netip.Addr]lastStamp{}}
}

// rule is the one by which the wire loses what the kernel dropped.
func (r *recycle) rule() wire.Rule {
	return wire.Rule{
		Match: wire.Match{Where: r.refuses}, Action: wire.Drop,
		Note: "dropped by the emulated tcp_tw_recycle",
	}
}

// refuses sees every segment, and remembers.
func (r *recycle) refuses(s *wire.Segment) bool {
	switch {
	case s.Src == r.service && s.Flags&wire.FIN != 0:
		r.closing[s.Dst] = true
	case s.Dst != r.service:
	case s.Flags&wire.FIN != 0 && r.closing[s.Src]:
		delete(r.closing, s.Src)
		if s.TimeStamps != nil {
			r.last[s.Src.Addr()] = lastStamp{s.TimeStamps.Value, time.Now()}
		}
	case s.Flags&wire.SYN != 0:
		last, known := r.last[s.Src.Addr()]
		if !known || time.Since(last.at) >= recycleMemory {
			return false
		}
		return s.TimeStamps == nil || int32(last.value-s.TimeStamps.Value) > recycleWindow
	}
	return false
}
