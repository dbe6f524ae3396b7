// Package capacity is the arithmetic of ports, rates and lifetimes: how many
// source ports a connector has, how many are taken, how many will be, and when
// they run out. It knows no namespace and no clock, and refuses to guess: whoever
// lacks a number must not call it.
//
// # Ports
//
// connect() without a port tries the ports of net.ipv4.ip_local_port_range but
// those of ip_local_reserved_ports and those whose bind bucket a bind() owns, be
// it a listener's or another's (net/ipv4/inet_hashtables.c, __inet_hash_connect).
// A port of the rest is free for a connection unless the same four numbers are in
// use, so the ports are counted anew for each source address, destination address
// and destination port:
//
//	P = |range − (reserved ∪ listeners ∪ bound)|
//
// # Lifetimes
//
// A TIME_WAIT socket lives TCP_TIMEWAIT_LEN = 60 s (include/net/tcp.h), whatever
// the settings, and then up to a step of the timer wheel more: 2 s with HZ=250, 4 s
// with HZ=1000 (kernel/time/timer.c). The step is not reckoned with, as HZ cannot be
// read everywhere: what is past its time counts as used, and is in no forecast.
// connect() may take one over earlier where net.ipv4.tcp_tw_reuse
// allows it and both ends used time stamps: once it is older than
// net.ipv4.tcp_tw_reuse_delay (kernel 6.14; before, one second of the time stamp
// clock; net/ipv4/tcp_ipv4.c, tcp_twsk_unique). A socket therefore holds its port
// for L seconds, L being 60 or the delay, and no longer.
//
// # Occupancy
//
// Let c[i] be the sockets that entered TIME_WAIT between i and i+1 seconds ago,
// spread evenly over that second, r the closes per second from now on, and F the
// sockets that stay: live ones, and time-wait sockets in FIN_WAIT2, which
// connect() does not take over. In t seconds,
//
//	used(t) = F + Σ c[i]·clamp(L − t − i, 0, 1) + r·min(t, L)
//
// From t = L on this is constant: predicted = F + r·L. So at a constant rate a
// range runs out within L ≤ 60 seconds or never, and the time left is the first t
// with used(t) ≥ P. used is linear between the moments at which a bucket begins or
// ends to leave, so the time left is exact and needs no steps.
//
// # The rate now
//
// The history is of survivors, so the latest seconds are the most complete. One
// second is noise, so the rate now is the mean over RecentSeconds; a minute is too
// slow to see an onset. A forecast goes by the lower of two means, over
// RecentSeconds (has it stopped?) and over SustainedSeconds (has it lasted?). As a
// burst of n closes within the last SustainedSeconds counts as n/20 a second at
// most, the forecast is at most three times what is already in TIME_WAIT: an
// incident is foretold when a third of its ports are gone, two thirds of the way
// before the end, and a burst that takes less than a third of the ports is never
// called exhaustion. Whether the ports run out is thus judged with care; when, by
// the rate now: an onset would else be told three times the time that is left.
//
// Where ports are taken over after a delay, older buckets have been eaten and tell
// nothing; no mean looks further back than a socket holds its port.
package capacity

import "time"

// TimeWaitSeconds is TCP_TIMEWAIT_LEN: a constant of every kernel.
const TimeWaitSeconds = 60

// The windows of the rate, in seconds.
const (
	RecentSeconds    = 2
	SustainedSeconds = 20
)

// DefaultReuseDelay is the age from which connect() may take a TIME_WAIT socket
// over, on kernels without net.ipv4.tcp_tw_reuse_delay and by its default.
const DefaultReuseDelay = time.Second

// Sizes of the slab objects that a time-wait socket takes, in bytes, on 64-bit
// kernels (/proc/slabinfo: tw_sock_TCP, tcp_bind_bucket, tcp_bind2_bucket).
const (
	timeWaitBytes   = 256
	bindBucketBytes = 128 + 128
)

// AcceptorBytes is the memory of n time-wait sockets of an acceptor, which share
// the bind bucket of its port.
func AcceptorBytes(n int) int64 { return int64(n) * timeWaitBytes }

// ConnectorBytes is the memory of n time-wait sockets of a connector. Each keeps
// the bind bucket of its port, so that it is an upper bound where destinations
// share ports.
func ConnectorBytes(n int) int64 { return int64(n) * (timeWaitBytes + bindBucketBytes) }

// SustainableRate is how many closes a second the ports can carry for ever, when
// fixed of them stay in use and each close holds its port for the lifetime.
func SustainableRate(ports, fixed int, lifetime time.Duration) float64 {
	if ports <= fixed {
		return 0
	}
	return float64(ports-fixed) / lifetime.Seconds()
}
