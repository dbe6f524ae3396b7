package setting

import (
	"slices"
	"strings"
)

// The names of the settings, as sysctl(8) has them.
const (
	LocalPortRange     = "net.ipv4.ip_local_port_range"
	LocalReservedPorts = "net.ipv4.ip_local_reserved_ports"
	AutobindReuse      = "net.ipv4.ip_autobind_reuse"
	TWReuse            = "net.ipv4.tcp_tw_reuse"
	TWReuseDelay       = "net.ipv4.tcp_tw_reuse_delay"
	TWRecycle          = "net.ipv4.tcp_tw_recycle"
	TWTimeout          = "net.ipv4.tcp_tw_timeout"
	Timestamps         = "net.ipv4.tcp_timestamps"
	FinTimeout         = "net.ipv4.tcp_fin_timeout"
	MaxTWBuckets       = "net.ipv4.tcp_max_tw_buckets"
	RFC1337            = "net.ipv4.tcp_rfc1337"

	MaxSYNBacklog   = "net.ipv4.tcp_max_syn_backlog"
	SYNCookies      = "net.ipv4.tcp_syncookies"
	AbortOnOverflow = "net.ipv4.tcp_abort_on_overflow"
	Somaxconn       = "net.core.somaxconn"

	KeepaliveTime     = "net.ipv4.tcp_keepalive_time"
	KeepaliveInterval = "net.ipv4.tcp_keepalive_intvl"
	KeepaliveProbes   = "net.ipv4.tcp_keepalive_probes"
	OrphanRetries     = "net.ipv4.tcp_orphan_retries"
	Retries2          = "net.ipv4.tcp_retries2"

	IPVSConnReuseMode = "net.ipv4.vs.conn_reuse_mode"

	TCPMem            = "net.ipv4.tcp_mem"
	MaxOrphans        = "net.ipv4.tcp_max_orphans"
	NetdevMaxBacklog  = "net.core.netdev_max_backlog"
	NetdevBudget      = "net.core.netdev_budget"
	NetdevBudgetUsecs = "net.core.netdev_budget_usecs"
	NrOpen            = "fs.nr_open"
	FileMax           = "fs.file-max"

	TrackedMax         = "net.netfilter.nf_conntrack_max"
	TrackedBuckets     = "net.netfilter.nf_conntrack_buckets"
	TrackedCount       = "net.netfilter.nf_conntrack_count"
	TrackedEstablished = timeoutPrefix + "established"
	TrackedTimeWait    = timeoutPrefix + "time_wait"

	timeoutPrefix = "net.netfilter.nf_conntrack_tcp_timeout_"
)

// TrackedState is the state that a setting is the time-out of, false for all other
// settings.
func TrackedState(name string) (string, bool) {
	state, found := strings.CutPrefix(name, timeoutPrefix)
	return state, found && slices.ContainsFunc(tcpStates, func(s tcpState) bool { return s.name == state })
}
