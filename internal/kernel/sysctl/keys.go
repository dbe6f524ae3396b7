package sysctl

// PerNamespace are the keys that the kernel keeps for each network namespace:
// ipv4_net_table of net/ipv4/sysctl_net_ipv4.c, netns_core_table of
// net/core/sysctl_net_core.c, vs_vars of net/netfilter/ipvs/ip_vs_ctl.c. A new
// namespace begins with the compiled defaults, not with the values of the host.
//
// Older kernels kept some of them once per host (tcp_max_tw_buckets and
// tcp_tw_recycle through 4.10). There a child namespace has no such file, Read says
// ErrAbsent, and the value in the first namespace is the one that counts.
var PerNamespace = []string{
	"net.ipv4.ip_local_port_range",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_autobind_reuse", // from 5.7
	"net.ipv4.tcp_tw_reuse",
	"net.ipv4.tcp_tw_reuse_delay", // from 6.14
	"net.ipv4.tcp_tw_recycle",     // through 4.11
	"net.ipv4.tcp_timestamps",
	"net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_max_tw_buckets",
	"net.ipv4.tcp_rfc1337",
	"net.ipv4.tcp_max_syn_backlog",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_abort_on_overflow",
	"net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_keepalive_intvl",
	"net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_orphan_retries",
	"net.ipv4.tcp_retries2",
	"net.core.somaxconn",
	"net.ipv4.vs.conn_reuse_mode", // where IPVS is loaded
}

// HostWide are the keys that the kernel keeps once: ipv4_table of
// net/ipv4/sysctl_net_ipv4.c, net_core_table of net/core/sysctl_net_core.c,
// fs_stat_sysctls of fs/file_table.c. A child namespace lacks those under net; but it
// shows the limit and the size of the connection-tracking table, read-only
// (net/netfilter/nf_conntrack_standalone.c).
var HostWide = []string{
	"net.ipv4.tcp_mem",
	"net.ipv4.tcp_max_orphans",
	"net.core.netdev_max_backlog",
	"net.core.netdev_budget",
	"net.core.netdev_budget_usecs",
	"net.netfilter.nf_conntrack_max",
	"net.netfilter.nf_conntrack_buckets",
	"fs.nr_open",
	"fs.file-max",
}
