package setting

import "math"

// host are the limits that the kernel keeps once.
var host = []Setting{
	{
		Name: TCPMem, Scope: HostWide, Read: true,
		Kernels:  "all; one limit for all namespaces",
		Defaults: []Default{{By: Memory}},
		Legal:    Legal{Form: Three, Unbounded: "any three numbers of pages"},
		Does:     "Pages of 4 KiB: below the first no limit, from the second pressure, at the third refusal",
		Source:   "tcp(7)",
		Unit:     "pages",
		Risk:     "memory that programs then lack: the kernel does not give it back until buffers empty",
	},
	{
		Name: MaxOrphans, Scope: HostWide, Read: true,
		Kernels:    "all; one limit for all namespaces",
		Defaults:   []Default{{By: Memory}},
		Legal:      Legal{Low: 0, High: math.MaxInt32},
		Does:       "An orphan over the limit is reset at once",
		Source:     "net/ipv4/tcp.c, tcp_check_oom",
		Unit:       "orphans",
		Risk:       "up to 64 KiB of kernel memory for each orphan that still has data to send",
		Dependents: []string{"every namespace of the host", "tcp_mem, which may end before it"},
		Beliefs:    []Belief{FewerOrphans, CookiesAndOrphans},
	},
	{
		Name: NetdevMaxBacklog, Scope: HostWide, Read: true,
		Kernels:  "all; one value for the host before 6.1 or so, and for its own namespace alone",
		Defaults: []Default{{Value: "1000"}},
		Legal:    Legal{Unbounded: "any int"},
		Does:     "Packets that are steered to a CPU, and those of loopback and veth, wait there",
		Source:   "net/core/dev.c, enqueue_to_backlog",
		Unit:     "packets",
		Risk:     "packets wait longer in a longer queue",
	},
	{
		Name: NetdevBudget, Scope: HostWide, Read: true,
		Kernels:  "all",
		Defaults: []Default{{Value: "300"}},
		Legal:    Legal{Unbounded: "any int"},
		Does:     "How many packets a CPU takes from its devices in one round of the softirq",
		Source:   "net/core/dev.c, net_rx_action",
		Unit:     "packets",
	},
	{
		Name: NetdevBudgetUsecs, Scope: HostWide, Read: true, Since: Kernel{4, 12},
		Kernels:  "4.12 and later",
		Defaults: []Default{{From: Kernel{4, 12}, By: Tick}},
		Legal:    Legal{Unbounded: "the bounds have changed, and it is not known when"},
		Does:     "For how long such a round may last",
		Source:   "net/core/dev.c, net_rx_action",
		Unit:     "µs",
	},
	{
		Name: TrackedMax, Scope: HostWide, Read: true,
		Kernels:    "all",
		Defaults:   []Default{{By: Memory}},
		Legal:      Legal{Low: 1, High: math.MaxInt32},
		Does:       "One limit for all namespaces, written in the host's; each namespace counts its own",
		Source:     "net/netfilter/nf_conntrack_core.c",
		Unit:       "tracked connections",
		Risk:       "about 320 bytes of kernel memory for each entry; longer chains unless nf_conntrack_buckets grows with it",
		Dependents: []string{"every namespace that tracks connections", "nf_conntrack_buckets, which should grow with it"},
	},
	{
		Name: TrackedBuckets, Scope: HostWide, Read: true,
		Kernels:  "all",
		Defaults: []Default{{By: Memory}},
		Legal:    Legal{Unbounded: "any number that memory is found for"},
		Does:     "The size of the hash table that all namespaces share for tracked connections",
		Source:   "net/netfilter/nf_conntrack_core.c, nf_conntrack_hash_resize",
		Unit:     "buckets",
	},
	{
		Name: NrOpen, Scope: HostWide, Read: true,
		Kernels:  "all",
		Defaults: []Default{{Value: "1048576"}},
		Legal:    Legal{Unbounded: "multiples of 64, up to what the size of a pointer allows"},
		Does:     "The highest RLIMIT_NOFILE that a process can be given",
		Source:   "proc_sys_fs(5)",
		Unit:     "descriptors",
	},
	{
		Name: FileMax, Scope: HostWide, Read: true,
		Kernels:  "all",
		Defaults: []Default{{By: Memory}},
		Legal:    Legal{Unbounded: "any number"},
		Does:     "How many files all processes without CAP_SYS_ADMIN may have open together",
		Source:   "proc_sys_fs(5)",
		Unit:     "files",
	},
}

// tracking is what connection tracking keeps for each namespace.
var tracking = append(trackedTimeouts(), Setting{
	Name: TrackedCount, Scope: PerNamespace,
	Kernels:  "all, for each namespace",
	Defaults: []Default{{Value: "0"}},
	Legal:    Legal{Unbounded: "it is read-only"},
	Does:     "How many connections the table holds for the namespace now",
	Source:   "net/netfilter/nf_conntrack_standalone.c",
	Unit:     "tracked connections",
})

// tcpState is a TCP state of connection tracking, which are not those of the stack.
type tcpState struct {
	name string
	// seconds is its default (tcp_timeouts of net/netfilter/nf_conntrack_proto_tcp.c).
	seconds string
	// read: a snapshot has it. What it does not have is no state that connections rest in.
	read bool
}

var tcpStates = []tcpState{
	{"close", "10", true},
	{"close_wait", "60", true},
	{"established", "432000", true},
	{"fin_wait", "120", true},
	{"last_ack", "30", true},
	{"max_retrans", "300", false},
	{"syn_recv", "60", true},
	{"syn_sent", "120", true},
	{"time_wait", "120", true},
	{"unacknowledged", "300", false},
}

func trackedTimeouts() (list []Setting) {
	for _, state := range tcpStates {
		list = append(list, Setting{
			Name: timeoutPrefix + state.name, Scope: PerNamespace, Read: state.read,
			Kernels:  "all, for each namespace",
			Defaults: []Default{{Value: state.seconds}},
			Legal:    Legal{Low: 1, High: math.MaxInt32 / 1000},
			Does:     "For how long connection tracking remembers a TCP connection in that state of its own",
			Source:   "net/netfilter/nf_conntrack_proto_tcp.c",
			Unit:     "s",
			Risk: "an entry that is forgotten too soon takes its translation with it; " +
				"one that is kept too long takes room in the table",
			When:       "with the next packet of a connection",
			Dependents: []string{"NAT, and rules that match ct state", "nf_conntrack_max"},
			Beliefs:    []Belief{TuningForTracking},
		})
	}
	return list
}
