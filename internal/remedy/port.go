package remedy

import (
	"fmt"

	"linger/internal/diagnose"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// What gives a service its port.

func reservePort(at *site) Remedy {
	const key = setting.LocalReservedPorts
	port := at.f.Subject.Local.Port
	reserved := tcp.PortSetOf(port)
	if at.ns != nil {
		if now, ok := at.ns.Settings.ReservedPorts(); ok {
			reserved = now.Union(reserved)
		}
	}
	value := reserved.String()
	return Remedy{
		Title:     fmt.Sprintf("Reserve port %d for the service", port),
		Kind:      Setting,
		Now:       at.set(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   at.persist(key, value),
		Frees:     "nothing at once: connect() chooses the port no more; sockets that have it keep it",
		Risk:      "one source port less",
		NotWhen:   "the service can be moved to a port below the range, which needs no reservation",
		Mechanism: setting.Of(key).Mechanism(),
		Kernels:   "all; for each namespace from 4.x on",
	}
}

func endBlocker(at *site) Remedy {
	r := Remedy{
		Title:     "End the connection that sits on the port",
		Kind:      LastResort,
		Frees:     "the port, at once where it ends by a reset, else after its 60 s in TIME_WAIT",
		Risk:      "that connection's work is lost",
		NotWhen:   "it ends by itself in time",
		Mechanism: "A port is free when no socket has it.",
		Kernels:   "ss -K: 4.5 and later, with CONFIG_INET_DIAG_DESTROY",
		Change:    "Let " + orProgram(at.owner()) + " close it and connect again.",
	}
	if port := at.f.Subject.Local.Port; port != 0 {
		r.Now = diagnose.In(at.f.Netns, fmt.Sprintf("ss -K sport = :%d", port))
	}
	return r
}

func reuseAddress(at *site) Remedy {
	return Remedy{
		Title: "Set SO_REUSEADDR before bind()",
		Kind:  Application,
		Change: "Let the service set SO_REUSEADDR on its listening socket, before bind(): accepted connections inherit it, so " +
			"that their TIME_WAIT stands in no way.",
		Examples: examplesFor(at.owner(), reusers),
		Frees:    "the port, for a service that starts again within a minute",
		Risk:     "none for TCP on Linux: two listeners on one port are still refused",
		NotWhen:  "an outgoing connection without the option has the port: both must have set it",
		Mechanism: "bind() lets a port be shared by sockets that all have SO_REUSEADDR and of which none listens " +
			"(net/ipv4/inet_connection_sock.c, inet_csk_bind_conflict).",
		Kernels: "all",
	}
}

var reusers = []program{
	{nil, Example{"Go", `net.Listen sets it`}},
	{[]string{"python", "gunicorn", "uwsgi"}, Example{"Python", "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  " +
		"# before bind; socketserver: allow_reuse_address = True"}},
	{[]string{"java"}, Example{"Java", `new ServerSocket(); setReuseAddress(true); bind(…)`}},
	{nil, Example{"C", `setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));`}},
}
