package sysctl

import "linger/internal/setting"

// PerNamespace are the keys of a snapshot that the kernel keeps for each network
// namespace: ipv4_net_table of net/ipv4/sysctl_net_ipv4.c, netns_core_table of
// net/core/sysctl_net_core.c, vs_vars of net/netfilter/ipvs/ip_vs_ctl.c.
//
// Older kernels kept some of them once per host (tcp_max_tw_buckets and
// tcp_tw_recycle through 4.10). There a child namespace has no such file, Read says
// ErrAbsent, and the value in the first namespace is the one that counts.
var PerNamespace = keys(setting.PerNamespace)

// HostWide are those that the kernel keeps once: ipv4_table of
// net/ipv4/sysctl_net_ipv4.c, net_core_table of net/core/sysctl_net_core.c,
// fs_stat_sysctls of fs/file_table.c. A child namespace lacks those under net; but it
// shows the limit and the size of the connection-tracking table, read-only
// (net/netfilter/nf_conntrack_standalone.c).
var HostWide = keys(setting.HostWide)

// keys are those of a scope, but for the time-outs of connection tracking, which its
// room reads.
func keys(scope setting.Scope) (names []string) {
	for _, s := range setting.All() {
		if _, timeout := setting.TrackedState(s.Name); s.Read && s.Scope == scope && !timeout {
			names = append(names, s.Name)
		}
	}
	return names
}
