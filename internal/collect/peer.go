package collect

import (
	"slices"

	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

// mirroredFrom is from how many live connections on the other end must have some
// of them too: fewer may have come or gone between the two dumps.
const mirroredFrom = 4

// join finds the other end of each group, by mirrored addresses, where it lies
// in a namespace that was read.
func (r *reading) join() {
	for _, ns := range r.namespaces {
		for i := range ns.facts.Groups {
			out := &ns.facts.Groups[i]
			if out.Role == tcp.Acceptor {
				r.joinClients(ns, ns.sorted.Groups[i], out)
			} else {
				out.Peer = r.acceptorOf(ns, ns.sorted.Groups[i])
			}
		}
	}
}

// acceptorOf is the end that listens. Where several namespaces have the address
// and listen, the one that counted the same connections is meant; and the only one
// that was read is not it, where it must have counted them and has not.
func (r *reading) acceptorOf(ns *namespace, g *group.Group) *snapshot.Peer {
	candidates := r.index.RemoteNamespaces(ns.index, g.Remote, g.Port)
	if len(candidates) > 1 || g.States[tcp.Established] >= mirroredFrom {
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(i int) bool {
			other := r.namespaces[i].sorted.Acceptor(group.Key{Local: g.Remote, Port: g.Port})
			return other == nil || !other.MayHaveClient(g.Local)
		})
	}
	if len(candidates) != 1 {
		return nil
	}
	at := r.namespaces[candidates[0]]
	peer := at.peer()
	peer.Owners = r.listening(at, g.Remote, g.Port)
	return peer
}

// joinClients finds the namespaces of an acceptor's clients.
func (r *reading) joinClients(ns *namespace, g *group.Group, out *snapshot.Group) {
	joined := map[int]int{} // sockets by namespace
	for i := range out.Clients {
		c := &out.Clients[i]
		addr := tcp.Addr(c.Addr.As16())
		from, known := r.index.Only(ns.index, addr)
		if !known {
			continue
		}
		at := r.namespaces[from]
		key := group.Key{Local: addr, Remote: g.Local, Port: g.Port}
		other := at.sorted.Connector(key)
		if other == nil && c.Sockets-c.TimeWait >= mirroredFrom && at.facts.SocketsComplete && at.facts.Other == nil {
			continue // another that has the same address, where nobody reads
		}
		c.Peer = at.peer()
		if other != nil {
			c.Peer.Owners = r.ownersOf(at, other)
		} else {
			if c.Peer.Owners, _ = r.seen(at, tcp.Connector, key, nil); len(c.Peer.Owners) == 0 {
				c.Peer.Owners = r.inferred(at, key, g.ClosesGoOn())
			}
		}
		joined[from] += c.Sockets
		if out.Peer == nil && 2*joined[from] > g.Sockets {
			out.Peer = c.Peer
		}
	}
}

func (ns *namespace) peer() *snapshot.Peer {
	return &snapshot.Peer{Cookie: ns.facts.Cookie, Inode: ns.facts.Inode, Netns: ns.facts.Label.String()}
}
