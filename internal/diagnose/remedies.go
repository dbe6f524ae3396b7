package diagnose

// The remedies that rules name.
const (
	// KeepConnections: the client keeps its connections and uses them again.
	KeepConnections RemedyID = "keep-connections"
	// PeerClosesFirst: the other side closes first and has the TIME_WAIT.
	PeerClosesFirst RemedyID = "peer-closes-first"
	// KeepAlive: the server lets its clients use connections again.
	KeepAlive RemedyID = "keep-alive"
	// MoreAddresses: more source or destination addresses, each with ports anew.
	MoreAddresses RemedyID = "more-addresses"
	// BindAddressNoPort: IP_BIND_ADDRESS_NO_PORT where a program binds its source.
	BindAddressNoPort RemedyID = "bind-address-no-port"
	// WidenPortRange: a wider net.ipv4.ip_local_port_range.
	WidenPortRange RemedyID = "widen-port-range"
	// ReuseOn: net.ipv4.tcp_tw_reuse=1.
	ReuseOn RemedyID = "tw-reuse-on"
	// ReuseDelayDefault: net.ipv4.tcp_tw_reuse_delay back at one second.
	ReuseDelayDefault RemedyID = "tw-reuse-delay-default"
	// TimestampsOn: net.ipv4.tcp_timestamps=1.
	TimestampsOn RemedyID = "timestamps-on"
	// RaiseBuckets: a higher net.ipv4.tcp_max_tw_buckets.
	RaiseBuckets RemedyID = "raise-tw-buckets"
	// FinTimeoutDefault: net.ipv4.tcp_fin_timeout back at 60.
	FinTimeoutDefault RemedyID = "fin-timeout-default"
	// CloseSockets: the program closes what its peer has closed.
	CloseSockets RemedyID = "close-sockets"
	// AcceptSooner: the program calls accept() more often.
	AcceptSooner RemedyID = "accept-sooner"
	// RaiseBacklog: the program asks listen() for a longer queue.
	RaiseBacklog RemedyID = "raise-backlog"
	// RaiseSomaxconn: a higher net.core.somaxconn.
	RaiseSomaxconn RemedyID = "raise-somaxconn"
	// PeerCloses: the program at the other end closes its sockets.
	PeerCloses RemedyID = "peer-closes"
	// BoundHalfClose: a program waits for its peer after shutdown() for a bounded time.
	BoundHalfClose RemedyID = "bound-half-close"
	// ReachPeer: repair the peer or the way to it.
	ReachPeer RemedyID = "reach-peer"
	// FewerOrphanRetries: a lower net.ipv4.tcp_orphan_retries.
	FewerOrphanRetries RemedyID = "fewer-orphan-retries"
	// RaiseMaxOrphans: a higher net.ipv4.tcp_max_orphans.
	RaiseMaxOrphans RemedyID = "raise-max-orphans"
	// RecycleOff: net.ipv4.tcp_tw_recycle=0, or its line taken out.
	RecycleOff RemedyID = "recycle-off"
	// CloseWithFIN: end connections by a FIN in place of a reset.
	CloseWithFIN RemedyID = "close-with-fin"
	// ReadToEnd: read all that came before the close.
	ReadToEnd RemedyID = "read-to-end"
	// ProbeIdle: keep-alive probes sooner than a middlebox forgets.
	ProbeIdle RemedyID = "probe-idle"
	// IdleBelowPeer: give idle connections up before the peer does.
	IdleBelowPeer RemedyID = "idle-below-peer"
	// LongerConntrack: connection tracking that remembers for long enough.
	LongerConntrack RemedyID = "longer-conntrack-timeout"
	// RFC1337Off: net.ipv4.tcp_rfc1337 back at 0.
	RFC1337Off RemedyID = "rfc1337-off"
	// NATMemory: a NAT that remembers a closed connection for a minute at least.
	NATMemory RemedyID = "nat-memory"
	// ReadFaster: the program takes its data in time.
	ReadFaster RemedyID = "read-faster"
	// RaiseTCPMem: a higher net.ipv4.tcp_mem.
	RaiseTCPMem RemedyID = "raise-tcp-mem"
	// SpreadSoftirq: let more CPUs receive.
	SpreadSoftirq RemedyID = "spread-softirq"
	// RaiseNetdevBacklog: a higher net.core.netdev_max_backlog.
	RaiseNetdevBacklog RemedyID = "raise-netdev-backlog"
	// RaiseTracked: a higher net.netfilter.nf_conntrack_max.
	RaiseTracked RemedyID = "raise-conntrack-max"
	// ShorterTrackedTimeWait: nf_conntrack_tcp_timeout_time_wait at 60 s.
	ShorterTrackedTimeWait RemedyID = "conntrack-time-wait-60"
	// NoTrack: packets that no rule asks about pass untracked.
	NoTrack RemedyID = "no-track"
	// MoreNATAddresses: source NAT to several addresses.
	MoreNATAddresses RemedyID = "more-nat-addresses"
	// WiderNATPorts: source NAT that may use all ports.
	WiderNATPorts RemedyID = "wider-nat-ports"
	// ReservePort: a service's port in net.ipv4.ip_local_reserved_ports.
	ReservePort RemedyID = "reserve-port"
	// ReuseAddress: SO_REUSEADDR on the listening socket.
	ReuseAddress RemedyID = "reuse-address"
	// EndBlocker: end the connection that sits on a service's port.
	EndBlocker RemedyID = "end-blocker"
	// RestartProcess: its sockets end with it.
	RestartProcess RemedyID = "restart-process"
	// LingerZero: SO_LINGER with a time-out of zero; data is lost.
	LingerZero RemedyID = "linger-zero"
)

// RemedyIDs lists them all.
func RemedyIDs() []RemedyID {
	return []RemedyID{
		KeepConnections, PeerClosesFirst, KeepAlive, MoreAddresses, BindAddressNoPort, WidenPortRange, ReuseOn,
		ReuseDelayDefault, TimestampsOn, RaiseBuckets, FinTimeoutDefault, CloseSockets, AcceptSooner, RaiseBacklog,
		RaiseSomaxconn, PeerCloses, BoundHalfClose, ReachPeer, FewerOrphanRetries, RaiseMaxOrphans, RecycleOff,
		CloseWithFIN, ReadToEnd, ProbeIdle, IdleBelowPeer, LongerConntrack, RFC1337Off, NATMemory, ReadFaster, RaiseTCPMem,
		SpreadSoftirq, RaiseNetdevBacklog, RaiseTracked, ShorterTrackedTimeWait, NoTrack, MoreNATAddresses, WiderNATPorts,
		ReservePort, ReuseAddress, EndBlocker,
		RestartProcess, LingerZero,
	}
}
