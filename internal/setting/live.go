package setting

import "math"

// handshakes decide over connections that begin.
var handshakes = []Setting{
	{
		Name: MaxSYNBacklog, Scope: PerNamespace, Read: true, Own: Kernel{4, 10},
		Kernels:    "all; for each namespace from 4.10",
		Defaults:   []Default{{By: Memory}},
		Legal:      Legal{Low: 1, High: math.MaxInt32},
		Does:       "It bounds the half-open connections of a listener where SYN cookies are off",
		Source:     "net/ipv4/tcp_input.c, tcp_conn_request",
		Unit:       "half-open connections",
		Risk:       "memory for each half-open connection",
		Dependents: []string{"listen(2), whose backlog and somaxconn bound it as well"},
		Beliefs:    []Belief{LongerQueues, HandshakesForListener},
	},
	{
		Name: SYNCookies, Scope: PerNamespace, Read: true, Own: Kernel{4, 6},
		Kernels:    "all; for each namespace from 4.6",
		Defaults:   []Default{{Value: "1"}},
		Legal:      Legal{Low: 0, High: 2},
		Pods:       PodsFirst,
		Does:       "With 1 a full queue of half-open connections answers by cookies",
		Two:        "2 always does, for tests",
		Risk:       "a connection by cookie may lack window scaling and SACK where it has no time stamps",
		Dependents: []string{"listeners whose queue of half-open connections is full"},
		Beliefs:    []Belief{HandshakesForListener, CookiesAndOrphans},
	},
	{
		Name: AbortOnOverflow, Scope: PerNamespace, Read: true, Own: Kernel{4, 15},
		Kernels:  "all; for each namespace from 4.15",
		Defaults: []Default{{Value: "0"}},
		Legal:    Legal{Low: 0, High: 1},
		Does:     "With 1 a connection that finds the accept queue full is reset; with 0 its last ACK is dropped, and the client sends again",
		Source:   "net/ipv4/tcp_minisocks.c, tcp_check_req",
		Beliefs:  []Belief{AbortForListener},
	},
}

// silence decides for how long a peer that says nothing is waited for.
var silence = []Setting{
	{
		Name: KeepaliveTime, Scope: PerNamespace, Read: true, Own: Kernel{4, 5},
		Kernels:    "all; for each namespace from 4.5",
		Defaults:   []Default{{Value: "7200"}},
		Legal:      Legal{Low: 1, High: 32_767},
		Pods:       "1.29",
		Does:       "For how long a connection with SO_KEEPALIVE is idle before it is probed",
		Unit:       "s",
		Risk:       "a probe and its answer for each idle connection",
		When:       whenTimerEnds,
		Dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPIDLE of their own", "middleboxes that forget idle connections"},
		Beliefs:    []Belief{KeepaliveAlone},
	},
	{
		Name: KeepaliveInterval, Scope: PerNamespace, Read: true, Own: Kernel{4, 5},
		Kernels:    "all; for each namespace from 4.5",
		Defaults:   []Default{{Value: "75"}},
		Legal:      Legal{Low: 1, High: 32_767},
		Pods:       "1.29",
		Does:       "The time between probes that are not answered",
		Unit:       "s",
		Risk:       "a lower value gives slow peers up sooner",
		When:       whenTimerEnds,
		Dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPINTVL of their own"},
	},
	{
		Name: KeepaliveProbes, Scope: PerNamespace, Read: true, Own: Kernel{4, 5},
		Kernels:    "all; for each namespace from 4.5",
		Defaults:   []Default{{Value: "9"}},
		Legal:      Legal{Low: 1, High: 127},
		Pods:       "1.29",
		Does:       "How many probes without an answer end a connection",
		Unit:       "probes",
		Risk:       "a lower value gives peers up that lose a few segments",
		Dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPCNT of their own"},
	},
	{
		Name: OrphanRetries, Scope: PerNamespace, Read: true, Own: Kernel{4, 6},
		Kernels:  "all; for each namespace from 4.6",
		Defaults: []Default{{Value: "0"}},
		Legal:    Legal{Low: 0, High: math.MaxUint8},
		Does:     "How often the kernel sends to a peer again for a socket that no program has",
		Source:   "net/ipv4/tcp_timer.c, tcp_orphan_retries",
		After:    "; 0 means 8",
		Unit:     "retries",
		Risk:     "A peer that cannot be reached for those seconds loses what was still to be sent.",
	},
	{
		Name: Retries2, Scope: PerNamespace, Read: true, Own: Kernel{4, 6},
		Kernels:  "all; for each namespace from 4.6",
		Defaults: []Default{{Value: "15"}},
		Legal:    Legal{Low: 0, High: math.MaxUint8},
		Does: "How often a segment of an established connection is sent again before the connection is given up: " +
			"about a quarter of an hour for 15",
		Source: "net/ipv4/tcp_timer.c, tcp_write_timeout",
		Unit:   "retries",
	},
}

const whenTimerEnds = "when a connection's present timer ends"

// listening decides over connections that wait for accept(), and for a real server.
var listening = []Setting{
	{
		Name: Somaxconn, Scope: PerNamespace, Read: true,
		Kernels:    "all; the default is 4096 from 5.4, 128 before",
		Defaults:   []Default{{Value: "128"}, {From: Kernel{5, 4}, Value: "4096"}},
		Legal:      Legal{Low: 0, High: math.MaxInt32},
		Does:       "listen(2) cuts its backlog to this value",
		Source:     "net/socket.c, __sys_listen",
		After:      ": programs that listen already keep theirs",
		Unit:       "connections",
		Risk:       "none by itself; a long queue makes clients wait",
		When:       "when a program listens anew",
		Dependents: []string{"programs that listen later: restart those that should have it"},
		Beliefs:    []Belief{LongerQueues, SomaxconnAlone},
	},
	{
		Name: IPVSConnReuseMode, Scope: PerNamespace, Read: true,
		Kernels:  "where IPVS is loaded",
		Defaults: []Default{{Value: "1"}},
		Legal:    Legal{Unbounded: "an int of bits, none of which is checked"},
		Does: "How IPVS treats a SYN with the four numbers of a connection that it still knows: " +
			"with 0 it goes to the same server, with 1 to a new choice",
		Source: "Documentation/networking/ipvs-sysctl.rst",
	},
}
