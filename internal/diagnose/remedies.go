package diagnose

// The remedies that several rules name. One that a single rule names stands in the rule's file.
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
	// ReachPeer: repair the peer or the way to it.
	ReachPeer RemedyID = "reach-peer"
	// LongerConntrack: connection tracking that remembers for long enough.
	LongerConntrack RemedyID = "longer-conntrack-timeout"
	// ShorterTrackedTimeWait: nf_conntrack_tcp_timeout_time_wait at 60 s.
	ShorterTrackedTimeWait RemedyID = "conntrack-time-wait-60"
	// RestartProcess: its sockets end with it.
	RestartProcess RemedyID = "restart-process"
	// LingerZero: SO_LINGER with a time-out of zero; data is lost.
	LingerZero RemedyID = "linger-zero"
)
