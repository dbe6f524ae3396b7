package collect

import (
	"context"
	"slices"

	"linger/internal/kernel/sockdiag"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// outgoingTold is how many outgoing connections on a wanted port are named.
const outgoingTold = 5

// wantedPorts are the ports that a service wants and on which nobody listens: those
// asked about, and those with remains of accepted connections.
func (r *reading) wantedPorts(ns *namespace) []snapshot.Wanted {
	var wanted []snapshot.Wanted
	add := func(service tcp.Endpoint, asked bool) {
		taken := slices.ContainsFunc(ns.facts.Listeners, func(l snapshot.Listener) bool { return l.Local.Port == service.Port })
		known := slices.ContainsFunc(wanted, func(w snapshot.Wanted) bool { return w.Service.Port == service.Port })
		if !taken && !known {
			wanted = append(wanted, snapshot.Wanted{Service: service, Asked: asked})
		}
	}
	if ns.facts.Own || len(r.options.Netns) > 0 && !slices.Contains(r.options.Netns, "all") {
		for _, service := range r.options.Services {
			add(service, true)
		}
	}
	for _, g := range ns.sorted.Groups {
		if g.Role == tcp.Acceptor && g.Rule == tcp.ByFanOut && g.States[tcp.TimeWait] > 0 {
			add(tcp.Endpoint{Addr: g.Local.Netip(), Port: g.Port}, false)
		}
	}
	return wanted
}

// lookAtWanted looks for what sits on ports that services want.
func (r *reading) lookAtWanted(ctx context.Context) {
	for _, ns := range r.namespaces {
		if !ns.connected {
			continue
		}
		wanted := r.wantedPorts(ns)
		if len(wanted) == 0 {
			continue
		}
		byPort := map[uint16]*snapshot.Wanted{}
		for i := range wanted {
			byPort[wanted[i].Service.Port] = &wanted[i]
		}
		inodes := map[uint64]struct{}{}
		type outgoing struct {
			of    *snapshot.Wanted
			at    int
			inode uint64
		}
		var named []outgoing
		err := ns.dump(ctx, sockdiag.Request{States: connections}, func(s *tcp.Socket) {
			w := byPort[s.LocalPort]
			if w == nil {
				return
			}
			out, byPort := r.goesOut(ns, s)
			if !out {
				w.Remains[s.State]++
				return
			}
			if len(w.Outgoing) < outgoingTold {
				w.Outgoing = append(w.Outgoing, snapshot.Connection{
					Local:  tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort},
					Remote: tcp.Endpoint{Addr: s.Remote.Netip(), Port: s.RemotePort},
					State:  s.State.String(),
					ByPort: byPort,
				})
				if s.Inode != 0 {
					inodes[uint64(s.Inode)] = struct{}{}
					named = append(named, outgoing{w, len(w.Outgoing) - 1, uint64(s.Inode)})
				}
			}
		})
		if err != nil && ctx.Err() == nil {
			r.gap(ns.label(), "what sits on the ports of services", "sock_diag (CONFIG_INET_DIAG, module tcp_diag)", err)
			continue
		}
		if len(inodes) > 0 {
			// What may not be read was told as a gap by the search for all owners.
			found, _ := r.proc.Owners(ctx, inodes)
			r.owners.learn(found)
			for _, o := range named {
				if owner, known := r.owners.byInode[o.inode]; known {
					o.of.Outgoing[o.at].Owners = r.owners.named(map[int32]int{owner.PID: 1}, snapshot.Seen, 0, 0)
				}
			}
		}
		ns.facts.Wanted = wanted
	}
}

// goesOut tells whether a socket is the connecting end: its remote end listens, or it was
// told to be a connector. Where the remote end was not read, and the many connections of
// the service that is gone hide it, a live one to a port that no client would have been
// given is told by that.
func (r *reading) goesOut(ns *namespace, s *tcp.Socket) (out, byPort bool) {
	if r.index.Listens(s.RemotePort) && r.index.Remote(ns.index, s.Remote, s.RemotePort) {
		return true, false
	}
	if g := ns.sorted.Connector(group.ConnectorKey(s)); g != nil && g.Role == tcp.Connector {
		return true, false
	}
	clients, known := ns.facts.Settings.PortRange()
	byPort = known && s.Inode != 0 && s.State == tcp.Established && !clients.Contains(s.RemotePort)
	return byPort, byPort
}
