package plan

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"linger/internal/tcp"
)

// The keys that decide over source ports.
const (
	KeyRange      = "net.ipv4.ip_local_port_range"
	KeyReserved   = "net.ipv4.ip_local_reserved_ports"
	KeyReuse      = "net.ipv4.tcp_tw_reuse"
	KeyReuseDelay = "net.ipv4.tcp_tw_reuse_delay"
	KeyTimestamps = "net.ipv4.tcp_timestamps"

	keyBuckets    = "net.ipv4.tcp_max_tw_buckets"
	keyFinTimeout = "net.ipv4.tcp_fin_timeout"
	keyRFC1337    = "net.ipv4.tcp_rfc1337"
	keyRecycle    = "net.ipv4.tcp_tw_recycle"
	keyTracked    = "net.netfilter.nf_conntrack_max"
)

// key is what is known of one setting: its place, what the kernel takes, and what to
// tell of a change that no finding explains.
type key struct {
	name     string
	hostWide bool
	// low and high bound a number; a key with another form has parse.
	low, high int64
	parse     func(string) error

	unit, mechanism, risk, kernels string
	// when says how soon the value shows, empty for at once.
	when       string
	dependents []string
}

// keys are all that linger changes. The bounds are those of ipv4_net_table
// (net/ipv4/sysctl_net_ipv4.c), netns_core_table (net/core/sysctl_net_core.c) and
// nf_ct_sysctl_table (net/netfilter/nf_conntrack_standalone.c).
var keys = []key{
	{
		name: KeyRange, parse: parseRange, unit: "source ports",
		mechanism:  "connect() without a port, and bind() with port 0, choose from this range, less the reserved ports.",
		risk:       "A service that starts later may find its port taken (EADDRINUSE): reserve it.",
		kernels:    "all; for each namespace from 3.15 on",
		dependents: []string{"every program in the namespace that connects without binding a port", "services whose ports lie in the range", "firewall rules that name the range"},
	},
	{
		name: KeyReserved, parse: parseSet, unit: "ports",
		mechanism:  "connect() and bind() with port 0 skip reserved ports; a program that names one still gets it (Documentation/networking/ip-sysctl.rst).",
		risk:       "each reserved port of the range is one source port less",
		kernels:    "all; for each namespace from 3.18 on",
		dependents: []string{"the number of source ports"},
	},
	{
		name: KeyReuse, low: 0, high: 2, unit: "",
		mechanism:  "With both ends' time stamps, connect() may use a port again that has been in TIME_WAIT for tcp_tw_reuse_delay; 2 allows it on loopback alone (net/ipv4/tcp_ipv4.c, tcp_twsk_unique).",
		risk:       "It protects less against segments of the old connection that are still under way: time stamps tell them apart, the closing handshake no longer does.",
		kernels:    "for each namespace from 4.10; 2 from 4.18",
		dependents: []string{"outgoing connections of every program in the namespace", "tcp_timestamps, which it needs at both ends", "tcp_tw_reuse_delay"},
	},
	{
		name: KeyReuseDelay, low: 1, high: 60_000, unit: "ms",
		mechanism:  "The age in milliseconds from which connect() may take over a TIME_WAIT socket.",
		risk:       "A delay below a tick of the peer's time stamp clock makes connects stall.",
		kernels:    "6.14 and later",
		dependents: []string{"tcp_tw_reuse, without which nothing reads it"},
	},
	{
		name: KeyTimestamps, low: 0, high: 2, unit: "",
		mechanism:  "New connections carry time stamps (RFC 7323); those that stand keep what they agreed on.",
		risk:       "12 bytes more in each segment",
		kernels:    "all; for each namespace from 4.11",
		dependents: []string{"tcp_tw_reuse, which needs them", "protection against old segments (PAWS)", "round-trip measurement"},
	},
	{
		name: keyFinTimeout, low: 1, high: math.MaxInt32 / 1000, unit: "s",
		mechanism:  "For how long a socket without an owner waits for its peer's FIN; TIME_WAIT is a constant of 60 s and does not read it.",
		risk:       "orphans in FIN_WAIT2 stay for as long",
		kernels:    "all; for each namespace from 4.6",
		when:       "for sockets that are closed from then on",
		dependents: []string{"peers that close late", "sockets that set TCP_LINGER2"},
	},
	{
		name: keyBuckets, low: 0, high: math.MaxInt32, unit: "time-wait sockets",
		mechanism:  "What exceeds the limit is dropped without TIME_WAIT (net/ipv4/inet_timewait_sock.c).",
		risk:       "256 bytes of kernel memory for each time-wait socket more, twice that for outgoing connections",
		kernels:    "for each namespace from 4.11; before, it is the host's, and linger leaves it",
		dependents: []string{"kernel memory"},
	},
	{
		name: "net.ipv4.tcp_max_orphans", hostWide: true, low: 0, high: math.MaxInt32, unit: "orphans",
		mechanism:  "An orphan over the limit is reset at once (net/ipv4/tcp.c, tcp_check_oom).",
		risk:       "up to 64 KiB of kernel memory for each orphan that still has data to send",
		kernels:    "all; one limit for all namespaces",
		dependents: []string{"every namespace of the host", "tcp_mem, which may end before it"},
	},
	{
		name: "net.ipv4.tcp_max_syn_backlog", low: 1, high: math.MaxInt32, unit: "half-open connections",
		mechanism:  "It bounds the half-open connections of a listener where SYN cookies are off (net/ipv4/tcp_input.c, tcp_conn_request).",
		risk:       "memory for each half-open connection",
		kernels:    "all; for each namespace from 4.10",
		dependents: []string{"listen(2), whose backlog and somaxconn bound it as well"},
	},
	{
		name: "net.core.somaxconn", low: 0, high: math.MaxInt32, unit: "connections",
		mechanism:  "listen(2) cuts its backlog to this value (net/socket.c, __sys_listen): programs that listen already keep theirs.",
		risk:       "none by itself; a long queue makes clients wait",
		kernels:    "all; the default is 4096 from 5.4, 128 before",
		when:       "when a program listens anew",
		dependents: []string{"programs that listen later: restart those that should have it"},
	},
	{
		name: "net.ipv4.tcp_keepalive_time", low: 1, high: 32_767, unit: "s",
		mechanism:  "For how long a connection with SO_KEEPALIVE is idle before it is probed.",
		when:       "when a connection's present timer ends",
		risk:       "a probe and its answer for each idle connection",
		kernels:    "all; for each namespace from 4.5",
		dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPIDLE of their own", "middleboxes that forget idle connections"},
	},
	{
		name: "net.ipv4.tcp_keepalive_intvl", low: 1, high: 32_767, unit: "s",
		mechanism:  "The time between probes that are not answered.",
		when:       "when a connection's present timer ends",
		risk:       "a lower value gives slow peers up sooner",
		kernels:    "all; for each namespace from 4.5",
		dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPINTVL of their own"},
	},
	{
		name: "net.ipv4.tcp_keepalive_probes", low: 1, high: 127, unit: "probes",
		mechanism:  "How many probes without an answer end a connection.",
		risk:       "a lower value gives peers up that lose a few segments",
		kernels:    "all; for each namespace from 4.5",
		dependents: []string{"programs that set SO_KEEPALIVE and no TCP_KEEPCNT of their own"},
	},
	{
		name: keyRFC1337, low: 0, high: 1, unit: "",
		mechanism:  "With 1 a reset does not end TIME_WAIT (net/ipv4/tcp_minisocks.c).",
		risk:       "none at 0, the default",
		kernels:    "all; for each namespace from 4.11",
		dependents: []string{"clients whose SYN meets a TIME_WAIT of the same four numbers"},
	},
	{
		name: "net.ipv4.tcp_syncookies", low: 0, high: 2, unit: "",
		mechanism:  "With 1 a full queue of half-open connections answers by cookies; 2 always does, for tests.",
		risk:       "a connection by cookie may lack window scaling and SACK where it has no time stamps",
		kernels:    "all; for each namespace from 4.6",
		dependents: []string{"listeners whose queue of half-open connections is full"},
	},
	{
		name: keyTracked, hostWide: true, low: 1, high: math.MaxInt32, unit: "tracked connections",
		mechanism:  "One limit for all namespaces, written in the host's; each namespace counts its own (net/netfilter/nf_conntrack_core.c).",
		risk:       "about 320 bytes of kernel memory for each entry; longer chains unless nf_conntrack_buckets grows with it",
		kernels:    "all",
		dependents: []string{"every namespace that tracks connections", "nf_conntrack_buckets, which should grow with it"},
	},
}

// trackedTimeouts are the time-outs of connection tracking for TCP, in seconds.
const trackedTimeouts = "net.netfilter.nf_conntrack_tcp_timeout_"

var trackedStates = []string{"close", "close_wait", "established", "fin_wait", "last_ack", "max_retrans", "syn_recv", "syn_sent", "time_wait", "unacknowledged"}

// Keys are the names of all keys that linger changes.
func Keys() []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	for _, state := range trackedStates {
		names = append(names, trackedTimeouts+state)
	}
	return names
}

func keyOf(name string) (key, error) {
	for _, k := range keys {
		if k.name == name {
			return k, nil
		}
	}
	if state, found := strings.CutPrefix(name, trackedTimeouts); found && slices.Contains(trackedStates, state) {
		return key{
			name: name, low: 1, high: math.MaxInt32 / 1000, unit: "s",
			mechanism:  "For how long connection tracking remembers a TCP connection in that state of its own (net/netfilter/nf_conntrack_proto_tcp.c).",
			when:       "with the next packet of a connection",
			risk:       "an entry that is forgotten too soon takes its translation with it; one that is kept too long takes room in the table",
			kernels:    "all, for each namespace",
			dependents: []string{"NAT, and rules that match ct state", "nf_conntrack_max"},
		}, nil
	}
	if name == keyRecycle {
		return key{}, Refuse(name, "", "")
	}
	return key{}, fmt.Errorf("%s is no key that linger changes; these are: %s", name, strings.Join(Keys(), ", "))
}

func (k key) place() string {
	if k.hostWide {
		return "once for the whole host"
	}
	return "for each namespace"
}

// valid tells whether the kernel takes a value.
func (k key) valid(value string) error {
	if k.parse != nil {
		return k.parse(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < k.low || n > k.high {
		return fmt.Errorf("%q: want a number from %d to %d", value, k.low, k.high)
	}
	return nil
}

// parseRange refuses what the kernel refuses (net/ipv4/sysctl_net_ipv4.c,
// ipv4_local_port_range) refuses, and ports that need a privilege.
func parseRange(value string) error {
	r, err := tcp.ParsePortRange(value)
	if err != nil {
		return err
	}
	if r.Low < 1024 {
		return fmt.Errorf("%q: want ports from 1024 on: those below are for services (ip_unprivileged_port_start)", value)
	}
	return nil
}

func parseSet(value string) error {
	_, err := tcp.ParsePortSet(value)
	return err
}

// number is a value as a number, where it is one.
func number(value string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, err == nil
}

// Refusal is why linger does not make a change, and what to do instead.
type Refusal struct {
	Key, New string
	Reason   string
	Instead  string
	// Legal: the kernel takes it and it can be meant, so that it may be forced.
	Legal bool
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("refused: %s = %s: %s; instead: %s", r.Key, r.New, r.Reason, r.Instead)
	if r.Legal {
		text += "; --force overrules it"
	}
	return text
}

// Refuse is why a change is not made, nil where nothing is against it.
func Refuse(key, old, new string) *Refusal {
	was, _ := number(old)
	value, isNumber := number(new)
	r := &Refusal{Key: key, New: new, Legal: true}
	switch {
	case key == keyRecycle:
		r.Legal = false
		r.Reason = "it drops connections of clients behind NAT, and kernels from 4.12 on do not have it"
		r.Instead = "`linger plan --set " + KeyReuse + "=1` for outgoing connections; delete lines that set it from the files of sysctl.d"
	case !isNumber:
		return nil
	case key == keyFinTimeout && value < 60:
		r.Reason = "TIME_WAIT does not read it: it lasts 60 s whatever this says, and peers that close late get a reset"
		r.Instead = "leave it at 60; for source ports `linger plan --set " + KeyReuse + "=1`, or a wider " + KeyRange
	case key == keyBuckets && value < was:
		r.Reason = "sockets over the limit lose their TIME_WAIT, and with it the protection from old segments"
		r.Instead = "leave it, or raise it: 256 bytes for each socket are cheap"
	case key == keyRFC1337 && value == 1:
		r.Reason = "new connections that meet an old TIME_WAIT can no longer clear it by a reset, and time out"
		r.Instead = "leave it at 0"
	case key == KeyTimestamps && value == 0:
		r.Reason = "tcp_tw_reuse needs time stamps, and so does the protection against old segments (PAWS)"
		r.Instead = "leave it at 1"
	default:
		return nil
	}
	return r
}
