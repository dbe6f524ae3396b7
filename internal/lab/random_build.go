package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"linger/internal/proof"
)

// builtWorld is a world that stands.
type builtWorld struct {
	World
	*Built

	addrs   []hostAddrs
	healthy []string // names of the bystanders' processes
	faulty  bool
}

// hostAddrs are the addresses of a host, the first and the second of each family.
type hostAddrs struct{ v4, v6 []netip.Addr }

func (h hostAddrs) of(ipv6 bool) []netip.Addr {
	if ipv6 {
		return h.v6
	}
	return h.v4
}

// third is an address that neither a host nor second gives away.
func third(addr netip.Addr) netip.Addr {
	bytes := addr.AsSlice()
	bytes[len(bytes)-1] += 50
	other, _ := netip.AddrFromSlice(bytes)
	return other
}

// build builds the world in fresh namespaces: the bystanders first, until they are ripe,
// since the signs of some faults last no longer than a few seconds.
func (w World) build(ctx context.Context) (*builtWorld, error) {
	if w.needsIPv6() && !hasIPv6() {
		return nil, fmt.Errorf("build seed %d: %w", w.Seed, errNoIPv6)
	}
	names := make([]string, w.Hosts)
	for i := range names {
		names[i] = host(i)
	}
	t, err := NewSwitched(names...)
	if err != nil {
		return nil, fmt.Errorf("build seed %d: %w", w.Seed, err)
	}
	b := &builtWorld{World: w, Built: &Built{Topology: t}}
	if err := b.bystanders(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build seed %d: %w", w.Seed, err), t.Close())
	}
	if s, faulty := w.scenario(); faulty {
		sleep(ctx, time.Until(b.RipeAt))
		o := w.Options
		o.Size = cmp.Or(o.Size, s.Size)
		server := t.Nodes[w.Server]
		if w.SecondAddress {
			server.IPv4, server.IPv6 = b.addrs[w.Server].v4[1], b.addrs[w.Server].v6[1]
		}
		if b.Built, err = s.buildOn(ctx, t, t.Nodes[w.Client], server, o); err != nil {
			return nil, fmt.Errorf("build seed %d: %w", w.Seed, err)
		}
		b.faulty = true
		if w.OneEnd {
			b.unread = b.client
			if b.Expect.Node == b.client {
				b.unread = b.server
			}
		}
		b.RipeAt = later(b.RipeAt, time.Now()).Add(w.Later)
	}
	// A sharer needs the service.
	for i, by := range w.Bystanders {
		if by.Kind == Sharer {
			if err := b.share(ctx, i, by); err != nil {
				return nil, errors.Join(fmt.Errorf("build seed %d: %w", w.Seed, err), t.Close())
			}
		}
	}
	return b, nil
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// needsIPv6 tells whether anything of it was drawn over IPv6.
func (w World) needsIPv6() bool {
	return w.Fault != "" && w.Options.IPv6 || slices.ContainsFunc(w.Bystanders, func(b Bystander) bool { return b.IPv6 && b.Kind != Sharer })
}

func (b *builtWorld) bystanders(ctx context.Context) error {
	for _, n := range b.Topology.Nodes {
		a := hostAddrs{[]netip.Addr{n.IPv4, third(n.IPv4)}, []netip.Addr{n.IPv6, third(n.IPv6)}}
		for _, addr := range possible(a.v4[1], a.v6[1]) {
			if err := n.addAddress(addr); err != nil {
				return err
			}
		}
		b.addrs = append(b.addrs, a)
	}
	for i, by := range b.Bystanders {
		if by.Kind == Sharer {
			continue
		}
		if err := b.bystander(ctx, i, by); err != nil {
			return fmt.Errorf("bystander %q: %w", by, err)
		}
	}
	return nil
}

// process starts a process of a bystander.
func (b *builtWorld) process(ctx context.Context, host int, role string, i int) (*WorkerProcess, error) {
	name := fmt.Sprintf("by-%s-%d", role, i+1)
	b.healthy = append(b.healthy, name)
	return b.Topology.Nodes[host].Start(ctx, name)
}

// bystanderPort is the first of the ports of the ith bystander's services: above those
// of the faults, and below the range of source ports.
func bystanderPort(i int) uint16 { return uint16(9000 + 200*i) }

func (b *builtWorld) bystander(ctx context.Context, i int, by Bystander) error {
	closing := CloseSecond
	switch by.Kind {
	case ServiceChurn:
		closing = CloseFirst
	case Stragglers:
		closing = CloseNever
	case Accidents:
		closing = CloseByReset
	}
	ports := 1
	if by.Kind == Crawler {
		ports = crawledPorts
	}
	port := bystanderPort(i)
	if by.SamePort {
		port = servicePort
	}
	dial := DialSpec{Batch: 1, PeerCloses: by.Kind == ServiceChurn, Rate: by.Rate}
	service := b.addrs[by.To].of(by.IPv6)[:by.Addresses]
	if by.Kind == Loopback {
		service = []netip.Addr{loopbackAddr(by.IPv6)}
	}
	for _, addr := range service {
		for p := range ports {
			dial.To = append(dial.To, netip.AddrPortFrom(addr, port+uint16(p)))
		}
	}
	if by.Addresses > 1 {
		addrs := b.addrs[by.From].of(by.IPv6)
		dial.From = addrs
	}
	server, err := b.process(ctx, by.To, "server", i)
	if err != nil {
		return err
	}
	serve := ServeSpec{Endpoints: dial.To, Close: closing}
	if by.Wildcard {
		all := netip.IPv4Unspecified()
		if hasIPv6() {
			all = netip.IPv6Unspecified() // and IPv4 by the same socket
		}
		serve.Endpoints = nil
		for p := range ports {
			serve.Endpoints = append(serve.Endpoints, netip.AddrPortFrom(all, port+uint16(p)))
		}
	}
	if _, err := server.Serve(ctx, serve); err != nil {
		return err
	}
	client, err := b.process(ctx, by.From, "client", i)
	if err != nil {
		return err
	}
	switch by.Kind {
	case Crawler, Loopback:
		dial.Batch = 5
	case Reuser:
		dial.Batch = 5
		if err := b.Topology.Nodes[by.From].Set("net.ipv4.tcp_tw_reuse", "1"); err != nil {
			return err
		}
	case Idle, Pool:
		return hold(ctx, client, dial, by.Connections, by.Kind == Pool)
	case Stragglers:
		if err := hold(ctx, client, dial, by.Connections, false); err != nil {
			return err
		}
		return client.Drop(ctx)
	case BurstOfChurn:
		dial.Count, dial.Rate = by.Connections, 0
		if done, err := client.Churn(ctx, dial); err != nil || done.Failed+done.NoPort > 0 {
			return cmp.Or(err, fmt.Errorf("%d of %d connections failed: %s", done.Failed+done.NoPort, dial.Count, done.FirstFailure))
		}
		b.RipeAt = time.Now().Add(quietAfterBurst)
		dial.Count, dial.Rate = 0, by.Rate
	case Relay:
		// The client is the relay; its clients are on the other side.
		if err := hold(ctx, client, dial, by.Connections, true); err != nil {
			return err
		}
		own := netip.AddrPortFrom(b.addrs[by.From].of(by.IPv6)[0], bystanderPort(i)+1)
		if _, err := client.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{own}, Close: CloseSecond}); err != nil {
			return err
		}
		visitor, err := b.process(ctx, by.To, "visitor", i)
		if err != nil {
			return err
		}
		return hold(ctx, visitor, DialSpec{To: []netip.AddrPort{own}}, by.Connections, true)
	}
	return client.Begin(ctx, dial)
}

func loopbackAddr(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// share gives the service of the fault a healthy client.
func (b *builtWorld) share(ctx context.Context, i int, by Bystander) error {
	client, err := b.process(ctx, by.From, "client", i)
	if err != nil {
		return err
	}
	service := netip.AddrPortFrom(b.server.Addr(by.IPv6), servicePort)
	return hold(ctx, client, DialSpec{To: []netip.AddrPort{service}}, by.Connections, true)
}

// hold opens connections that stay, and uses them a few times.
func hold(ctx context.Context, client *WorkerProcess, dial DialSpec, count int, used bool) error {
	dial.Count, dial.Rate = count, 0
	done, err := client.Hold(ctx, dial)
	if err != nil || done.Failed+done.NoPort > 0 {
		return cmp.Or(err, fmt.Errorf("%d of %d connections failed: %s", done.Failed+done.NoPort, count, done.FirstFailure))
	}
	if used {
		for range 3 {
			if err := client.Talk(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// truth is what a diagnosis has to name.
func (b *builtWorld) truth() proof.Truth {
	t := proof.Truth{}
	if b.faulty {
		t = b.Built.truth()
	}
	t.Healthy = b.healthy
	return t
}
