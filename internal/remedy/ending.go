package remedy

import (
	"fmt"

	"linger/internal/diagnose"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// How connections end, and how a program notices that one has.

func closeWithFIN(at *site) Remedy {
	return Remedy{
		Title: "End connections with a FIN",
		Kind:  Application,
		Change: "Take SO_LINGER with a time-out of zero out of the program, and write nothing after the peer's end: a plain " +
			"close() sends what is left, then a FIN.",
		Examples:  examplesFor(at.owner(), finishers),
		Frees:     "the data that a reset throws away, and the peer's ECONNRESET",
		Risk:      "The side that closes first has the TIME_WAIT again: 60 s, and for a client a source port each.",
		NotWhen:   "the reset is meant: the peer is hostile, or the data worthless",
		Mechanism: "close() with SO_LINGER {1, 0} is an abort (RFC 9293, 3.10.5; net/ipv4/tcp.c, __tcp_close).",
		Kernels:   "all",
	}
}

func readToEnd(at *site) Remedy {
	return Remedy{
		Title: "Read to the end before closing",
		Kind:  Application,
		Change: "In " + orProgram(at.owner()) + ", read what the peer still sends, up to a bound, before close(): a close with " +
			"data unread is a reset.",
		Examples:  examplesFor(at.owner(), finishers),
		Frees:     "the peer's ECONNRESET, and answers that the reset overtakes and destroys",
		Risk:      "a peer that sends without end must be cut off by a bound in bytes or seconds",
		NotWhen:   "the peer is hostile",
		Mechanism: "close() with unread data sends a reset, since the data is lost (RFC 2525, 2.17; counted in TCPAbortOnClose).",
		Kernels:   "all",
	}
}

func probeIdle(at *site) Remedy {
	return Remedy{
		Title: "Probe idle connections before a firewall forgets them",
		Kind:  Application,
		Change: "In " + orProgram(at.owner()) + ", set SO_KEEPALIVE with TCP_KEEPIDLE below the shortest time-out on the way, " +
			"and TCP_USER_TIMEOUT to give a dead peer up in seconds.",
		Examples: examplesFor(at.owner(), probers),
		Frees:    "connections that hang for a quarter of an hour (tcp_retries2)",
		Risk:     "one small segment for each idle connection and interval",
		NotWhen:  "the protocol has a heart-beat of its own",
		Mechanism: "A probe and its answer refresh the entry of each firewall and NAT on the way; the sysctls tcp_keepalive_* count " +
			"only where a program asked for keep-alive (tcp(7)).",
		Kernels: "all; TCP_USER_TIMEOUT from 2.6.37",
	}
}

func idleBelowPeer(at *site) Remedy {
	r := Remedy{
		Title: "Give idle connections up before the other side does",
		Kind:  Application,
		Change: "Set the pool's idle time-out below the shortest of the peer's keep-alive time-out and the time-outs of " +
			"balancers and firewalls on the way.",
		Examples:  examplesFor(at.owner(), idlers),
		Frees:     "requests that fail on a connection which the other side has just ended",
		Risk:      "more connections are opened",
		NotWhen:   "connections are reset in the middle of their use",
		Mechanism: "Who sends on a connection that the peer has closed gets a reset.",
		Kernels:   "all",
	}
	if at.f.Subject.Role == tcp.Acceptor {
		r.Change = "Keep idle connections longer here than the clients' pools do: the client must be the one that gives up first."
	}
	return r
}

func longerConntrack(at *site) Remedy {
	established, timeWait := setting.Of(setting.TrackedEstablished), setting.Of(setting.TrackedTimeWait)
	key, value, why := established.Name, "86400", "an idle connection for a day"
	if at.f.Problem == diagnose.SynOnTimeWait {
		key, value, why = timeWait.Name, timeWait.Default().Value, "a closed connection for longer than the servers' 60 s"
	}
	return Remedy{
		Title:     "Let connection tracking remember for longer",
		Kind:      Setting,
		Now:       at.set(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   at.persist(key, value),
		Frees:     "it remembers " + why,
		Risk:      "more entries in the table: see nf_conntrack_count and nf_conntrack_max",
		NotWhen:   "the table is near its limit",
		Mechanism: "A segment of a connection that it has forgotten is new or invalid to the firewall (net/netfilter/nf_conntrack_proto_tcp.c).",
		Kernels:   fmt.Sprintf("%s; the defaults are %s s and %s s", established.Kernels, established.Default().Value, timeWait.Default().Value),
	}
}

func rfc1337Off(at *site) Remedy {
	const key = setting.RFC1337
	value := setting.Of(key).Default().Value
	return Remedy{
		Title:   "Let a reset end TIME_WAIT again",
		Kind:    Setting,
		Now:     at.set(key, value),
		Sets:    []Assignment{{key, value}},
		Persist: at.persist(key, value),
		Frees:   "the connects that fail now: they stall for some milliseconds, or a second with old clients, and succeed",
		Risk:    "A reset at the right sequence number may end a TIME_WAIT early, as by default.",
		NotWhen: "it was set for a reason that someone can still name",
		Mechanism: "The client answers the ACK of the old connection by a reset, which ends the TIME_WAIT, and its next SYN is " +
			"accepted (net/ipv4/tcp_minisocks.c).",
		Kernels: "all",
	}
}

func natMemory(*site) Remedy {
	return Remedy{
		Title: "Let the NAT remember closed connections for a minute",
		Kind:  Application,
		Change: "On the NAT or balancer before this host, keep closed connections for 60 s at least, do not flush its table, and " +
			"give it more addresses: then it hands a port on only after TIME_WAIT.",
		Frees:     "the stalls of new connections",
		Risk:      "more entries in its table",
		NotWhen:   "no NAT or balancer stands before this host",
		Mechanism: "The server keeps TIME_WAIT for 60 s; who forgets earlier gives the four numbers to another host too soon.",
		Kernels:   "all; Linux keeps 120 s (nf_conntrack_tcp_timeout_time_wait)",
	}
}
