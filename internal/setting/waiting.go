package setting

import (
	"math"
	"strconv"
)

// ports decide over source ports.
var ports = []Setting{
	{
		Name: LocalPortRange, Scope: PerNamespace, Read: true, Own: Kernel{3, 15},
		Kernels:  "all; for each namespace from 3.15 on",
		Defaults: []Default{{Value: "32768 61000"}, {From: Kernel{4, 2}, Value: "32768 60999"}},
		Legal:    Legal{Form: Range, Low: 1024, High: math.MaxUint16},
		Pods:     PodsFirst,
		Does:     "connect() without a port, and bind() with port 0, choose from this range, less the reserved ports",
		Unit:     "source ports",
		Risk:     "A service that starts later may find its port taken (EADDRINUSE): reserve it.",
		Dependents: []string{
			"every program in the namespace that connects without binding a port", "services whose ports lie in the range",
			"firewall rules that name the range",
		},
		Beliefs: []Belief{WiderRangeAtService, WiderRangeForNAT},
	},
	{
		Name: LocalReservedPorts, Scope: PerNamespace, Read: true, Own: Kernel{3, 18},
		Kernels:    "all; for each namespace from 3.18 on",
		Defaults:   []Default{{Value: ""}},
		Legal:      Legal{Form: List, Low: 0, High: math.MaxUint16},
		Pods:       "1.27",
		Does:       "connect() and bind() with port 0 skip reserved ports; a program that names one still gets it",
		Source:     "Documentation/networking/ip-sysctl.rst",
		Unit:       "ports",
		Risk:       "each reserved port of the range is one source port less",
		Dependents: []string{"the number of source ports"},
	},
	{
		Name: AutobindReuse, Scope: PerNamespace, Read: true, Since: Kernel{5, 7}, Own: Kernel{5, 7},
		Kernels:  "5.7 and later",
		Defaults: []Default{{From: Kernel{5, 7}, Value: "0"}},
		Legal:    Legal{Low: 0, High: 1},
		Does:     "With 1 bind() with port 0 shares a port with sockets that have SO_REUSEADDR as well, once no other port is free",
		Source:   "net/ipv4/inet_connection_sock.c",
	},
}

// DefaultFinTimeout is the compiled default of tcp_fin_timeout in seconds (TCP_FIN_TIMEOUT of
// include/net/tcp.h), which new namespaces get whatever the host has.
const DefaultFinTimeout = 60

// OrphanSeconds is how long an orphan really stays in FIN_WAIT2, for a tcp_fin_timeout in
// seconds. Up to 60 s a time-wait socket takes its place at once, for the time that was
// set. Above, it stays a full socket for what exceeds 60 s (TCP_TIMEWAIT_LEN), and then a
// time-wait socket for as long again (net/ipv4/tcp_input.c, tcp_rcv_state_process;
// tcp_timer.c, tcp_keepalive_timer).
func OrphanSeconds(finTimeout int64) int64 {
	const timeWait = 60
	if finTimeout <= timeWait {
		return finTimeout
	}
	return 2 * (finTimeout - timeWait)
}

// waiting decides over TIME_WAIT and FIN_WAIT2, or is believed to.
var waiting = []Setting{
	{
		Name: TWReuse, Scope: PerNamespace, Read: true, Own: Kernel{4, 10},
		Kernels:  "for each namespace from 4.10; 2 from 4.18",
		Defaults: []Default{{Value: "0"}, {From: Kernel{4, 18}, Value: "2"}},
		Legal:    Legal{Low: 0, High: 2},
		Does:     "With both ends' time stamps, connect() may use a port again that has been in TIME_WAIT for tcp_tw_reuse_delay",
		Two:      "2 allows it on loopback alone",
		Source:   "net/ipv4/tcp_ipv4.c, tcp_twsk_unique",
		Risk: "It protects less against segments of the old connection that are still under way: time stamps tell them apart, " +
			"the closing handshake no longer does.",
		Dependents: []string{
			"outgoing connections of every program in the namespace", "tcp_timestamps, which it needs at both ends", "tcp_tw_reuse_delay",
		},
		Beliefs: []Belief{
			ReuseAtService, ReuseForListener, ReuseAfterBind, ReuseForPeers, ReuseForFinWait2, ReuseForOrphans,
			TuningForListener, TuningForCloseWait, TuningForTracking,
		},
	},
	{
		Name: TWReuseDelay, Scope: PerNamespace, Read: true, Since: Kernel{6, 14}, Own: Kernel{6, 14},
		Kernels:    "6.14 and later",
		Defaults:   []Default{{From: Kernel{6, 14}, Value: "1000"}},
		Legal:      Legal{Low: 1, High: 60_000},
		Does:       "The age in milliseconds from which connect() may take over a TIME_WAIT socket",
		Unit:       "ms",
		Risk:       "A delay below a tick of the peer's time stamp clock makes connects stall.",
		Dependents: []string{"tcp_tw_reuse, without which nothing reads it"},
	},
	{
		Name: TWRecycle, Scope: PerNamespace, Read: true, Until: Kernel{4, 11}, Own: Kernel{4, 11},
		Kernels:  "through 4.11; removed in 4.12 (commit 4396e46187ca)",
		Defaults: []Default{{Value: "0"}},
		Legal:    Legal{Unbounded: "any int: all but 0 is on"},
		Does:     "It filtered SYNs by one time stamp for each remote address",
		Source:   "net/ipv4/tcp_ipv4.c through 4.11",
		Refused: &Refused{
			Reason: "it drops connections of clients behind NAT, and kernels from 4.12 on do not have it",
			Instead: "`linger plan --set " + TWReuse + "=1` for outgoing connections; " +
				"delete lines that set it from the files of sysctl.d",
		},
		Beliefs: []Belief{Recycle, TimestampsOffForRecycle},
	},
	{
		// Its kernels are those of the vendor, and have versions of their own.
		Name: TWTimeout, Scope: PerNamespace, Read: true,
		Vendors:  []string{"Alibaba Cloud Linux 2 (from 4.19.43-13.al7)", "Alibaba Cloud Linux 3"},
		Kernels:  "Alibaba Cloud Linux 2 and 3 alone",
		Defaults: []Default{{Value: "60"}},
		Legal:    Legal{Low: 1, High: 600},
		Does:     "How long TIME_WAIT lasts, which is a constant everywhere else",
		Source:   "help of Alibaba Cloud: change the TCP TIME-WAIT timeout period",
		Unit:     "s",
		Risk:     "Below 60 s a port is free for a new connection while segments of the old one, or its last ACK, may still be under way.",
	},
	{
		// Own is not known: no source was read that bears out what Kernels says.
		Name: Timestamps, Scope: PerNamespace, Read: true,
		Kernels:    "all; for each namespace from 4.11",
		Defaults:   []Default{{Value: "1"}},
		Legal:      Legal{Low: 0, High: 2},
		Does:       "New connections carry time stamps (RFC 7323); those that stand keep what they agreed on",
		Risk:       "12 bytes more in each segment",
		Dependents: []string{"tcp_tw_reuse, which needs them", "protection against old segments (PAWS)", "round-trip measurement"},
		Refused: &Refused{
			Reason:  "tcp_tw_reuse needs time stamps, and so does the protection against old segments (PAWS)",
			Instead: "leave it at 1",
			Harms:   func(_, on int64) bool { return on == 0 },
		},
		Beliefs: []Belief{TimestampsOff, TimestampsOffForRecycle},
	},
	{
		Name: FinTimeout, Scope: PerNamespace, Read: true, Own: Kernel{4, 6},
		Kernels:    "all; for each namespace from 4.6",
		Defaults:   []Default{{Value: strconv.Itoa(DefaultFinTimeout)}},
		Legal:      Legal{Low: 1, High: math.MaxInt32 / 1000},
		Pods:       "1.29",
		Does:       "For how long a socket without an owner waits for its peer's FIN; TIME_WAIT is a constant of 60 s and does not read it",
		Unit:       "s",
		Risk:       "orphans in FIN_WAIT2 stay for as long",
		When:       "for sockets that are closed from then on",
		Dependents: []string{"peers that close late", "sockets that set TCP_LINGER2"},
		Refused: &Refused{
			Reason:  "TIME_WAIT does not read it: it lasts 60 s whatever this says, and peers that close late get a reset",
			Instead: "leave it at 60; for source ports `linger plan --set " + TWReuse + "=1`, or a wider " + LocalPortRange,
			Harms:   func(_, seconds int64) bool { return seconds < 60 },
		},
		Beliefs: []Belief{
			LowerFinTimeout, StillLowerFinTimeout, FinTimeoutForPeers, FinTimeoutForOrphans,
			TuningForListener, TuningForCloseWait, TuningForTracking,
		},
	},
	{
		Name: MaxTWBuckets, Scope: PerNamespace, Read: true, Own: Kernel{4, 11},
		Kernels:    "for each namespace from 4.11; before, it is the host's, and linger leaves it",
		Defaults:   []Default{{By: Memory}},
		Legal:      Legal{Low: 0, High: math.MaxInt32},
		Does:       "What exceeds the limit is dropped without TIME_WAIT",
		Source:     "net/ipv4/inet_timewait_sock.c",
		Unit:       "time-wait sockets",
		Risk:       "256 bytes of kernel memory for each time-wait socket more, twice that for outgoing connections",
		Dependents: []string{"kernel memory"},
		Refused: &Refused{
			Reason:  "sockets over the limit lose their TIME_WAIT, and with it the protection from old segments",
			Instead: "leave it, or raise it: 256 bytes for each socket are cheap",
			Harms:   func(old, limit int64) bool { return limit < old },
		},
		Beliefs: []Belief{FewerBuckets, BucketsForMemory, TuningForTracking},
	},
	{
		// Own is not known, and later than Kernels says: in 4.14 ipv4_net_table lacks it.
		Name: RFC1337, Scope: PerNamespace, Read: true,
		Kernels:    "all; for each namespace from 4.11",
		Defaults:   []Default{{Value: "0"}},
		Legal:      Legal{Low: 0, High: 1},
		Does:       "With 1 a reset does not end TIME_WAIT",
		Source:     "net/ipv4/tcp_minisocks.c",
		Risk:       "none at 0, the default",
		Dependents: []string{"clients whose SYN meets a TIME_WAIT of the same four numbers"},
		Refused: &Refused{
			Reason:  "new connections that meet an old TIME_WAIT can no longer clear it by a reset, and time out",
			Instead: "leave it at 0",
			Harms:   func(_, on int64) bool { return on == 1 },
		},
		Beliefs: []Belief{RFC1337On},
	},
}
