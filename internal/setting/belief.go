package setting

// Belief is advice that circulates, and the mechanism that defeats it.
type Belief struct{ Advice, Why string }

// What is believed of TIME_WAIT and the settings that are said to end it. Where one
// piece of advice comes twice, it fails in another way in another trouble.
var (
	LowerFinTimeout = Belief{
		"lower tcp_fin_timeout",
		"it limits orphans in FIN_WAIT2; TIME_WAIT is 60 s by a constant of the kernel (TCP_TIMEWAIT_LEN)",
	}
	StillLowerFinTimeout = Belief{"a still lower value", "TIME_WAIT does not read it"}
	FinTimeoutForPeers   = Belief{
		"lower tcp_fin_timeout",
		"it ends orphans sooner, and resets peers that are only slow; the peer goes on leaking",
	}
	FinTimeoutForOrphans = Belief{"lower tcp_fin_timeout", "it counts from the ACK of the FIN, which is what is missing"}

	Recycle = Belief{
		"tcp_tw_recycle",
		"it dropped the connections of clients behind one NAT, and kernel 4.12 removed it",
	}

	ReuseAtService = Belief{
		"tcp_tw_reuse",
		"it serves connect() alone: the TIME_WAIT of a service is not taken over by it",
	}
	ReuseForListener  = Belief{"tcp_tw_reuse", "it is asked by connect(), not by bind()"}
	ReuseAfterBind    = Belief{"tcp_tw_reuse", "it is asked by connect(), and bind() has chosen the port before"}
	ReuseForPeers     = Belief{"tcp_tw_reuse", "kernels from 6.12 on take over no socket in FIN_WAIT2"}
	ReuseForOrphans   = Belief{"tcp_tw_reuse", "these sockets have not reached TIME_WAIT"}
	ReuseForFinWait2  = Belief{"tcp_tw_reuse for FIN_WAIT2", "time-wait sockets whose peer has not closed are not taken over (kernel 6.12)"}
	TuningForTracking = Belief{
		"tcp_fin_timeout, tcp_tw_reuse, tcp_max_tw_buckets",
		"they are about sockets; the table has states and time-outs of its own, and holds connections of other hosts too",
	}
	TuningForCloseWait = Belief{"tcp_fin_timeout, tcp_tw_reuse", "CLOSE_WAIT ends when the program closes, and by no timer"}
	TuningForListener  = Belief{
		"TIME_WAIT tuning (tcp_fin_timeout, tcp_tw_reuse)",
		"TIME_WAIT sockets are in no listener's queue, and refuse nobody",
	}

	FewerBuckets = Belief{
		"lower tcp_max_tw_buckets",
		unannounced + ": late segments are answered by resets, or meet a new connection",
	}
	BucketsForMemory = Belief{
		"a lower tcp_max_tw_buckets to free memory",
		"100,000 of them are 26 MB; " + unannounced,
	}

	TimestampsOff = Belief{
		"tcp_timestamps=0",
		"without time stamps no port can be taken over early, and old segments are no longer told from new ones",
	}
	TimestampsOffForRecycle = Belief{
		"tcp_timestamps=0",
		"it keeps the filter from working, and takes away what protects against old segments",
	}

	RFC1337On = Belief{
		"tcp_rfc1337=1",
		"it keeps TIME_WAIT sockets from being reset, so that there are more of them, and new connections that meet one stall",
	}
)

const unannounced = "what is over the limit loses its TIME_WAIT unannounced"

// What is believed of ports, queues and limits.
var (
	WiderRangeAtService = Belief{
		"a wider ip_local_port_range",
		"accepted connections take no port of it: they share the service's own",
	}
	WiderRangeForNAT = Belief{
		"a wider ip_local_port_range",
		"it is for connections that begin here; the translation has a range of its own",
	}

	LongerQueues = Belief{
		"a larger somaxconn or SYN backlog",
		"these queues hold connections that begin, not those that have ended",
	}
	HandshakesForListener = Belief{
		"tcp_max_syn_backlog, tcp_syncookies",
		"they are about handshakes that are not finished; these are, and wait for accept()",
	}
	AbortForListener = Belief{
		"tcp_abort_on_overflow=1",
		"it turns a delay, after which the client may succeed, into a reset",
	}
	SomaxconnAlone = Belief{
		"somaxconn alone",
		"it is a ceiling: the program's own backlog decides, and is read by listen() only",
	}

	CookiesAndOrphans = Belief{
		"tcp_syncookies, tcp_max_orphans",
		"TIME_WAIT sockets are neither half-open connections nor orphans",
	}
	FewerOrphans = Belief{
		"lower tcp_max_orphans",
		"what is over the limit is reset at once, and loses the data that was still to be sent",
	}

	KeepaliveAlone = Belief{
		"a lower tcp_keepalive_time alone",
		"it counts only for sockets whose program set SO_KEEPALIVE",
	}
)
