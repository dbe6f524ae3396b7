package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// AddressInUse: something sits on a port that a service wants.
const AddressInUse Slug = "address-in-use"

var addressInUseRule = Rule{
	Slug:     AddressInUse,
	Title:    "a service cannot bind its port: TIME_WAIT or an outgoing connection sits on it",
	Needs:    "sockets, listeners; --service for a port that has not been served within the last minute",
	Remedies: []RemedyID{ReservePort, EndBlocker, ReuseAddress},
	judge:    judgeAddressInUse,
}

// The remedies of this problem alone.
const (
	// ReservePort: a service's port in net.ipv4.ip_local_reserved_ports.
	ReservePort RemedyID = "reserve-port"
	// ReuseAddress: SO_REUSEADDR on the listening socket.
	ReuseAddress RemedyID = "reuse-address"
	// EndBlocker: end the connection that sits on a service's port.
	EndBlocker RemedyID = "end-blocker"
)

func judgeAddressInUse(sc *scene) (v verdict) {
	for _, p := range sc.readable(&v) {
		if v.absent == "" {
			v.absent = "no service that was there within the last minute has gone, and no socket is connected to itself"
		}
		for i := range p.Wanted {
			w := &p.Wanted[i]
			if len(w.Outgoing) > 0 || w.Remains.Total() > 0 {
				v.findings = append(v.findings, sc.taken(p, w))
			}
		}
		if len(p.SelfConnected) > 0 {
			v.findings = append(v.findings, sc.selfConnected(p))
		}
	}
	return v
}

func (sc *scene) taken(p *place, w *snapshot.Wanted) draft {
	// It is about a port: what is left of the service's own connections is another
	// finding's.
	f := draft{sockets: len(w.Outgoing), ties: []tie{p.serves(w.Service)}}
	f.Netns, f.Confidence, f.Severity = p.netns, High, Info
	f.Subject = Subject{Role: tcp.Acceptor, Local: w.Service}
	f.Key.Subject = f.Subject
	check := p.in(fmt.Sprintf("ss -Htanpo sport = :%d", w.Service.Port))
	portRange, known := p.Settings.PortRange()
	switch {
	case len(w.Outgoing) > 0:
		c := w.Outgoing[0]
		f.Severity = Warning
		f.Owners = c.Owners
		name := "a process that could not be named"
		if len(c.Owners) > 0 {
			name = c.Owners[0].Process
		}
		f.Summary = fmt.Sprintf("nobody listens on port %d, and an outgoing connection of %s sits on it: %s, %s",
			w.Service.Port, name, way(c.Local, c.Remote), c.State)
		f.Why = "bind() gives the port to a service only when no other socket has it, but for sockets that both set SO_REUSEADDR. " +
			"connect() took it for a connection of its own"
		if known && portRange.Contains(w.Service.Port) {
			f.Why += fmt.Sprintf(", as it lies in ip_local_port_range (%s) and is not reserved", portRange)
			f.Remedies = []RemedyID{ReservePort}
		} else {
			f.Why += ", or its program asked for it"
		}
		f.Why += ". The service fails with EADDRINUSE until that connection is gone, and its TIME_WAIT after it."
		f.Remedies = append(f.Remedies, EndBlocker, ReuseAddress)
		if c.ByPort {
			f.lower(Medium)
			f.doubt(fmt.Sprintf("that the connection goes out: its other end was not read, "+
				"and port %d is none that a client would have been given", c.Remote.Port))
		}
	default:
		if w.Asked {
			f.Severity = Warning
		}
		f.Summary = fmt.Sprintf("nobody listens on port %d, and %s of its last connections are left: "+
			"a service without SO_REUSEADDR cannot come back yet",
			w.Service.Port, figure.Items(w.Remains.Total(), "socket"))
		f.Why = "A TIME_WAIT socket keeps its local port for 60 s. bind() to that port succeeds at once if the new socket and the old one " +
			"set SO_REUSEADDR, and fails with EADDRINUSE if either did not."
		f.Remedies = []RemedyID{ReuseAddress}
		f.doubt("whether the service sets SO_REUSEADDR: nearly all do, and then this stands in nobody's way")
	}
	if !w.Asked {
		f.lower(Medium)
		f.doubt("that a service wants the port: it had connections within the last minute, and has no listener now")
	}
	f.Evidence = []Evidence{
		{
			ID: "outgoing", Name: "outgoing on the port", Value: float64(len(w.Outgoing)), Limit: new(0.0), Unit: "sockets",
			Source: "sock_diag: sockets with that local port, whose remote end is a service", Check: check,
		},
		{
			ID: "left-in-time-wait", Name: "left in TIME_WAIT",
			Value: float64(w.Remains.TimeWaitSockets()), Limit: new(float64(w.Remains.Total())), Unit: "sockets",
			Source: "sock_diag: of the other sockets with that local port", Check: check,
		},
	}
	f.WillNotHelp = addressFolklore
	return f
}

func (sc *scene) selfConnected(p *place) draft {
	f := draft{sockets: len(p.SelfConnected)}
	f.Netns, f.Confidence, f.Severity = p.netns, High, Warning
	first := p.SelfConnected[0]
	f.Subject = Subject{Local: first, Remote: first}
	f.Key.Part = "connected to itself"
	f.Summary = fmt.Sprintf("%s to itself: a client of port %d got that port as its own source",
		figure.Items(len(p.SelfConnected), "socket")+" connected", first.Port)
	f.Why = "A client that tries again and again to reach a service of its own host, " +
		"on a port of ip_local_port_range on which nobody listens, is at last given that port as its source: " +
		"the two SYNs meet (a simultaneous open, RFC 9293, 3.5), and it talks to itself. The service then cannot bind its port."
	f.Evidence = []Evidence{{
		ID: "self-connected", Name: "connected to themselves", Value: float64(len(p.SelfConnected)), Limit: new(0.0), Unit: "sockets",
		Source: "sock_diag: both ends are the same", Check: p.in(fmt.Sprintf("ss -Htanp sport = :%d and dport = :%d", first.Port, first.Port)),
	}}
	f.Remedies = []RemedyID{ReservePort, EndBlocker}
	f.WillNotHelp = addressFolklore
	return f
}

var addressFolklore = []Folklore{
	noFinTimeout,
	Folklore(setting.ReuseForListener),
	{"SO_REUSEPORT", "it shares a port among listeners that all set it; TIME_WAIT and outgoing sockets did not"},
}
