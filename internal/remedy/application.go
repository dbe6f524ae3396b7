package remedy

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// uses is how often a kept connection serves in the estimates: a modest pool, whose
// idle connections end after a hundred requests.
const uses = 100

func keepConnections(at *site) Remedy {
	r := Remedy{
		Title:    "Keep connections and use them again",
		Kind:     Application,
		Change:   "Let the client keep a pool of connections to " + destination(at) + " in place of a new one for each request.",
		Examples: examplesFor(at.owner(), poolingClients),
		Frees:    fmt.Sprintf("nearly all of it: a connection that serves %d requests leaves one TIME_WAIT in place of %d", uses, uses),
		Risk: "A kept connection may be closed by the other side at any time: the client must retry what is safe to repeat, " +
			"and give up idle connections before the server does.",
		NotWhen:   "the protocol allows one request for each connection",
		Mechanism: "What is not closed enters no TIME_WAIT and takes no further port.",
		Kernels:   "all",
	}
	if closes := at.closes(); closes > 0 {
		after := closes / uses
		r.Frees = fmt.Sprintf("with %d requests for each connection, %s closes/s become %s, and TIME_WAIT settles at %s in place of %s",
			uses, figure.Rate(closes), figure.Rate(after),
			figure.Count(after*capacity.TimeWaitSeconds), figure.Count(closes*capacity.TimeWaitSeconds))
	}
	return r
}

// destination names the service of a finding on a client.
func destination(at *site) string {
	if at.f.Subject.Role == tcp.Connector {
		return at.f.Subject.Remote.String()
	}
	return "the service"
}

func keepAlive(at *site) Remedy {
	r := Remedy{
		Title: "Let clients use their connections again",
		Kind:  Application,
		Change: "Switch keep-alive on in the server, with an idle time-out above that of its clients and a large number of " +
			"requests for each connection.",
		Examples: examplesFor(at.owner(), keepAliveServers),
		Frees:    fmt.Sprintf("nearly all of it: a connection that serves %d requests leaves one TIME_WAIT in place of %d", uses, uses),
		Risk: "Idle connections take a descriptor and 2.4 kB of kernel memory each, and a worker where the server gives each " +
			"connection one.",
		NotWhen: "clients come once and do not come back within the time-out",
		Mechanism: "The server closes first because it ends each connection after the reply; with keep-alive it leaves that to the " +
			"client or to the idle time-out.",
		Kernels: "all",
	}
	if closes := at.closes(); closes > 0 {
		after := closes / uses
		r.Frees = fmt.Sprintf("with %d requests for each connection, %s closes/s become %s, and TIME_WAIT falls by %s of memory",
			uses, figure.Rate(closes), figure.Rate(after), figure.Size(capacity.AcceptorBytes(int((closes-after)*capacity.TimeWaitSeconds))))
	}
	return r
}

func peerClosesFirst(at *site) Remedy {
	n := 0
	if at.group != nil {
		n = at.group.States[tcp.TimeWait]
	}
	if at.f.Subject.Role == tcp.Acceptor {
		return Remedy{
			Title:  "Let the client close first",
			Kind:   Application,
			Change: "End a reply by its length in place of closing the connection, and let the client send the first FIN.",
			Frees:  fmt.Sprintf("%s sockets and %s here", figure.Count(n), figure.Size(capacity.AcceptorBytes(n))),
			Risk: "The TIME_WAIT moves to the clients, where each takes a source port for 60 s; a client that does not close leaves " +
				"the connection open: " +
				"keep an idle time-out.",
			NotWhen:   "few clients open many connections: their ports would run out",
			Mechanism: "The side that sends the first FIN has the TIME_WAIT (RFC 9293, 3.6).",
			Kernels:   "all",
		}
	}
	return Remedy{
		Title:     "Let the server close first",
		Kind:      Application,
		Change:    "Have the server end the connection after its reply, and read until the end before the client closes.",
		Examples:  []Example{{"HTTP/1.1", "Connection: close  (in the request: the server closes after its reply)"}},
		Frees:     fmt.Sprintf("%s source ports here", figure.Count(n)),
		Risk:      "The TIME_WAIT moves to the server, where it costs 256 bytes a connection and no port.",
		NotWhen:   "connections can be kept instead, which costs neither side; or the server's tcp_max_tw_buckets is near",
		Mechanism: "The side that sends the first FIN has the TIME_WAIT (RFC 9293, 3.6); a service's connections share its one port.",
		Kernels:   "all",
	}
}

func closeSockets(at *site) Remedy {
	return Remedy{
		Title: "Close what the peer has closed",
		Kind:  Application,
		Change: "In " + orProgram(at.owner()) + ", close the socket when read() returns 0, on error paths too; give pooled " +
			"connections an idle time-out below the peer's.",
		Examples:  examplesFor(at.owner(), closers),
		Frees:     fmt.Sprintf("%s descriptors and sockets, and what leaks from here on", figure.Count(leaked(at))),
		Risk:      "none: the peer is done with these connections",
		NotWhen:   "the program still sends to a peer that has only ended its own direction, and closes afterwards",
		Mechanism: "CLOSE_WAIT ends when the program closes its socket, and by nothing else (RFC 9293, 3.6).",
		Kernels:   "all",
	}
}

func restartProcess(at *site) Remedy {
	r := Remedy{
		Title:     "Restart the program, to gain time",
		Kind:      LastResort,
		Frees:     fmt.Sprintf("%s descriptors and sockets, until they have leaked again", figure.Count(leaked(at))),
		Risk:      "its good connections end too",
		NotWhen:   "descriptors are left for as long as the cure takes",
		Mechanism: "The kernel closes the sockets of a process that ends.",
		Kernels:   "all",
	}
	if len(at.f.Owners) == 0 {
		r.Change = "Restart the program that has them; as root, linger names it."
		return r
	}
	switch o := at.f.Owners[0]; {
	case o.Pod != "":
		r.Change = "Delete the pod with uid " + o.Pod + ": its controller makes a new one."
	case o.Container != "":
		r.Now = "docker restart " + o.Container
		r.Change = "With another runtime, restart container " + o.Container + " by its own command."
	default:
		// A session's scope and a user's manager hold much else that would end too.
		r.Now = fmt.Sprintf(`systemctl restart "$(ps -o unit= -p %d | grep -v -e '\.scope' -e '^user@')"`, o.PID)
		r.Change = fmt.Sprintf("Where no service of the system runs it, restart pid %d (%s) the way it was started.", o.PID, o.Process)
	}
	return r
}

// leaked is how many sockets a finding on a leak is about.
func leaked(at *site) float64 {
	if e, told := at.f.Measured(diagnose.LeakedSockets); told {
		return e.Value
	}
	if at.group != nil {
		return float64(at.group.States[tcp.CloseWait])
	}
	return 0
}

func orProgram(process string) string {
	if process == "" {
		return "the program"
	}
	return process
}

func acceptSooner(at *site) Remedy {
	return Remedy{
		Title: "Accept connections sooner",
		Kind:  Application,
		Change: "In " + orProgram(at.owner()) + ", call accept() from a thread that does nothing else, add workers, or find what " +
			"it waits for: a queue that stays full is a program that is too slow or stuck.",
		Examples:  examplesFor(at.owner(), acceptors),
		Frees:     "the whole queue, and the second or more that each refused client waits",
		Risk:      "more connections at a time in the program: it needs the descriptors and the memory for them",
		NotWhen:   "the program must shed load: then let it accept and answer that it is busy",
		Mechanism: "A connection leaves the queue when accept() takes it (net/ipv4/inet_connection_sock.c, inet_csk_accept).",
		Kernels:   "all",
	}
}

func raiseBacklog(at *site) Remedy {
	return Remedy{
		Title:     "Ask listen() for a longer queue",
		Kind:      Application,
		Change:    "Give " + orProgram(at.owner()) + " a larger backlog and restart it: the value is read by listen().",
		Examples:  examplesFor(at.owner(), backlogs),
		Frees:     "room for bursts up to the backlog; " + setting.Somaxconn + " is its ceiling",
		Risk:      "Clients wait in a long queue in place of trying elsewhere; each entry takes the memory of a socket (about 2.4 KB).",
		NotWhen:   "the queue is full all the time: a longer one only makes each client wait longer",
		Mechanism: "listen(2) cuts its backlog to " + setting.Somaxconn + " (" + setting.Of(setting.Somaxconn).Source + ").",
		Kernels:   "all; the default of somaxconn is " + somaxconnDefaults(),
	}
}

func peerCloses(at *site) Remedy {
	peer := "the program at the other end"
	if at.f.Peer != nil && len(at.f.Peer.Owners) > 0 {
		peer = at.f.Peer.Owners[0].Process
	}
	return Remedy{
		Title:     "Let the peer close too",
		Kind:      Application,
		Change:    "In " + peer + ", close the socket when read() returns 0; its sockets of these connections are in CLOSE_WAIT.",
		Examples:  examplesFor(peer, closers),
		Frees:     "the sockets here, and as many descriptors there",
		Risk:      "none: this side is done with the connections",
		NotWhen:   "the peer still sends its answer, and closes afterwards",
		Mechanism: "FIN_WAIT2 ends with the FIN of the peer (RFC 9293, 3.6).",
		Kernels:   "all",
	}
}

func boundHalfClose(at *site) Remedy {
	return Remedy{
		Title: "Close after shutdown(), within a bounded time",
		Kind:  Application,
		Change: "In " + orProgram(at.owner()) + ", read with a time-out after shutdown(SHUT_WR), then close(): the kernel bounds " +
			"only sockets that no program has.",
		Examples:  examplesFor(at.owner(), halfClosers),
		Frees:     "the descriptors at once; the sockets after tcp_fin_timeout",
		Risk:      "what the peer sends after that is answered by a reset",
		NotWhen:   "the answer may rightly take as long as it takes",
		Mechanism: "tcp_fin_timeout counts from close() (net/ipv4/tcp.c, __tcp_close); a socket in FIN_WAIT2 that a program has waits for ever.",
		Kernels:   "all",
	}
}

func reachPeer(at *site) Remedy {
	remote := "the remote addresses"
	check := "ss -Htno state fin-wait-1 state last-ack"
	if at.f.Subject.Remote.Addr.IsValid() {
		remote = at.f.Subject.Remote.Addr.String()
		check = "ping -c 3 " + remote
	}
	return Remedy{
		Title: "Find what became of the peer",
		Kind:  Application,
		Now:   diagnose.In(at.f.Netns, check),
		Change: "See whether " + remote + " is up, reachable, and reads what it is sent; a firewall on the way that has " +
			"forgotten the connection drops the FIN as well.",
		Frees:     "all of them, as soon as the peer answers or resets",
		Risk:      "none",
		NotWhen:   "the peer is known to be gone for good: then they end by themselves",
		Mechanism: "The FIN is sent again, at growing intervals, until it is acknowledged or tcp_orphan_retries are used up.",
		Kernels:   "all",
	}
}
