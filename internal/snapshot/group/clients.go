package group

import (
	"cmp"
	"slices"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

const (
	// clientsTold is how many clients of an acceptor are reported; clientsCounted how many
	// are counted, for these to be the right ones.
	clientsTold    = 20
	clientsCounted = 256
)

// clients counts an acceptor's sockets by remote address.
type clients struct {
	byAddr    map[tcp.Addr]clientCount
	discarded bool // some were
}

type clientCount struct{ sockets, timeWait, finWait2 int }

func newClients() *clients { return &clients{byAddr: map[tcp.Addr]clientCount{}} }

func (c *clients) add(addr tcp.Addr, state tcp.State) {
	n := clientCount{sockets: 1}
	switch state {
	case tcp.TimeWait:
		n.timeWait = 1
	case tcp.FinWait2, tcp.FinWait2TimeWait:
		n.finWait2 = 1
	}
	c.merge(addr, n)
}

func (c *clients) merge(addr tcp.Addr, more clientCount) {
	n, known := c.byAddr[addr]
	if !known && len(c.byAddr) >= clientsCounted {
		c.discard()
	}
	c.byAddr[addr] = clientCount{n.sockets + more.sockets, n.timeWait + more.timeWait, n.finWait2 + more.finWait2}
}

// discard forgets the smaller half.
func (c *clients) discard() {
	c.discarded = true
	for _, client := range c.sorted()[clientsCounted/2:] {
		delete(c.byAddr, tcp.Addr(client.Addr.As16()))
	}
}

func (c *clients) sorted() []snapshot.Client {
	all := make([]snapshot.Client, 0, len(c.byAddr))
	for addr, n := range c.byAddr {
		all = append(all, snapshot.Client{Addr: addr.Netip(), Sockets: n.sockets, TimeWait: n.timeWait, FinWait2: n.finWait2})
	}
	slices.SortFunc(all, func(a, b snapshot.Client) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), a.Addr.Compare(b.Addr))
	})
	return all
}

func (c *clients) busiest() (told []snapshot.Client, complete bool) {
	all := c.sorted()
	return slices.Clip(all[:min(len(all), clientsTold)]), !c.discarded && len(all) <= clientsTold
}
