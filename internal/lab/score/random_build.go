package score

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/setting"
)

// builtWorld is a world that stands.
type builtWorld struct {
	World
	*cases.Built

	addrs   []hostAddrs
	healthy []string    // names of the bystanders' processes
	unread  *stage.Node // is not looked at, nil where all are
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
	if w.needsIPv6() && !stage.HasIPv6() {
		return nil, fmt.Errorf("build seed %d: %w", w.seed, stage.ErrNoIPv6)
	}
	names := make([]string, w.hosts)
	for i := range names {
		names[i] = host(i)
	}
	t, err := stage.NewSwitched(names...)
	if err != nil {
		return nil, fmt.Errorf("build seed %d: %w", w.seed, err)
	}
	b := &builtWorld{World: w, Built: &cases.Built{Topology: t}}
	if err := b.standBystanders(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build seed %d: %w", w.seed, err), t.Close())
	}
	if s := w.scenario(); s.Slug != "" {
		stage.Sleep(ctx, time.Until(b.RipeAt))
		server := t.Nodes[w.server]
		if w.secondAddress {
			server.IPv4, server.IPv6 = b.addrs[w.server].v4[1], b.addrs[w.server].v6[1]
		}
		if b.Built, err = s.BuildOn(ctx, t, t.Nodes[w.client], server, w.options); err != nil {
			return nil, fmt.Errorf("build seed %d: %w", w.seed, err)
		}
		if w.oneEnd {
			b.unread = b.ClientNode
			if b.Expect.Node == b.ClientNode {
				b.unread = b.ServerNode
			}
		}
		b.RipeAt = later(b.RipeAt, time.Now()).Add(w.later)
	}
	// A sharer needs the service.
	for i, by := range w.bystanders {
		if by.kind == sharer {
			if err := b.share(ctx, i, by); err != nil {
				return nil, errors.Join(fmt.Errorf("build seed %d: %w", w.seed, err), t.Close())
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
	return w.fault != "" && w.options.IPv6 || slices.ContainsFunc(w.bystanders,
		func(b bystander) bool { return b.ipv6 && b.kind != sharer })
}

func (b *builtWorld) standBystanders(ctx context.Context) error {
	for _, n := range b.Topology.Nodes {
		a := hostAddrs{[]netip.Addr{n.IPv4, third(n.IPv4)}, []netip.Addr{n.IPv6, third(n.IPv6)}}
		for _, addr := range stage.Possible(a.v4[1], a.v6[1]) {
			if err := n.AddAddress(addr); err != nil {
				return err
			}
		}
		b.addrs = append(b.addrs, a)
	}
	for i, by := range b.bystanders {
		if by.kind == sharer {
			continue
		}
		if err := b.standBystander(ctx, i, by); err != nil {
			return fmt.Errorf("bystander %q: %w", by, err)
		}
	}
	return nil
}

// process starts a process of a bystander.
func (b *builtWorld) process(ctx context.Context, host int, role string, i int) (*stage.Worker, error) {
	name := fmt.Sprintf("by-%s-%d", role, i+1)
	b.healthy = append(b.healthy, name)
	return b.Topology.Nodes[host].Start(ctx, name)
}

// bystanderPort is the first of the ports of the ith bystander's services: above those
// of the faults, and below the range of source ports.
func bystanderPort(i int) uint16 { return uint16(9000 + 200*i) }

func (b *builtWorld) standBystander(ctx context.Context, i int, by bystander) error {
	dial := b.dialOf(i, by)
	server, err := b.process(ctx, by.to, "server", i)
	if err != nil {
		return err
	}
	if _, err := server.Serve(ctx, serviceOf(by, dial.To)); err != nil {
		return err
	}
	client, err := b.process(ctx, by.from, "client", i)
	if err != nil {
		return err
	}
	switch by.kind {
	case idle, pool:
		return hold(ctx, client, dial, by.connections, by.kind == pool)
	case stragglers:
		if err := hold(ctx, client, dial, by.connections, false); err != nil {
			return err
		}
		return client.Drop(ctx)
	case relay:
		return b.relay(ctx, i, by, client, dial)
	case reuser:
		if err := b.Topology.Nodes[by.from].Set(setting.TWReuse, "1"); err != nil {
			return err
		}
	case burstOfChurn:
		burst := dial
		burst.Count, burst.Rate = by.connections, 0
		if done, err := client.Churn(ctx, burst); err != nil || done.Failed+done.NoPort > 0 {
			return cmp.Or(err, fmt.Errorf("%d of %d connections failed: %s", done.Failed+done.NoPort, burst.Count,
				done.FirstFailure))
		}
		b.RipeAt = time.Now().Add(cases.QuietAfterBurst)
	}
	return client.Begin(ctx, dial)
}

// dialOf are the connections of the ith bystander.
func (b *builtWorld) dialOf(i int, by bystander) stage.DialSpec {
	dial := stage.DialSpec{Batch: 1, PeerCloses: by.kind == serviceChurn, Rate: by.rate}
	ports, port := 1, bystanderPort(i)
	switch by.kind {
	case crawler:
		ports, dial.Batch = crawledPorts, 5
	case loopback, reuser:
		dial.Batch = 5
	}
	if by.samePort {
		port = stage.ServicePort
	}
	service := b.addrs[by.to].of(by.ipv6)[:by.addresses]
	if by.kind == loopback {
		service = []netip.Addr{loopbackAddr(by.ipv6)}
	}
	for _, addr := range service {
		for p := range ports {
			dial.To = append(dial.To, netip.AddrPortFrom(addr, port+uint16(p)))
		}
	}
	if by.addresses > 1 {
		dial.From = b.addrs[by.from].of(by.ipv6)
	}
	return dial
}

// serviceOf is a bystander's service at some endpoints, or at all addresses with their
// ports.
func serviceOf(by bystander, at []netip.AddrPort) stage.ServeSpec {
	serve := stage.ServeSpec{Endpoints: at, Close: stage.CloseSecond}
	switch by.kind {
	case serviceChurn:
		serve.Close = stage.CloseFirst
	case stragglers:
		serve.Close = stage.CloseNever
	case accidents:
		serve.Close = stage.CloseByReset
	}
	if !by.wildcard {
		return serve
	}
	everywhere := netip.IPv4Unspecified()
	if stage.HasIPv6() {
		everywhere = netip.IPv6Unspecified() // and IPv4 by the same socket
	}
	serve.Endpoints = nil
	for _, endpoint := range at {
		if wild := netip.AddrPortFrom(everywhere, endpoint.Port()); !slices.Contains(serve.Endpoints, wild) {
			serve.Endpoints = append(serve.Endpoints, wild)
		}
	}
	return serve
}

// relay has a client serve others too: they are on the other side.
func (b *builtWorld) relay(ctx context.Context, i int, by bystander, client *stage.Worker, dial stage.DialSpec) error {
	if err := hold(ctx, client, dial, by.connections, true); err != nil {
		return err
	}
	own := netip.AddrPortFrom(b.addrs[by.from].of(by.ipv6)[0], bystanderPort(i)+1)
	if _, err := client.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{own}, Close: stage.CloseSecond}); err != nil {
		return err
	}
	visitor, err := b.process(ctx, by.to, "visitor", i)
	if err != nil {
		return err
	}
	return hold(ctx, visitor, stage.DialSpec{To: []netip.AddrPort{own}}, by.connections, true)
}

func loopbackAddr(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// share gives the service of the fault a healthy client.
func (b *builtWorld) share(ctx context.Context, i int, by bystander) error {
	client, err := b.process(ctx, by.from, "client", i)
	if err != nil {
		return err
	}
	service := netip.AddrPortFrom(b.ServerNode.Addr(by.ipv6), stage.ServicePort)
	return hold(ctx, client, stage.DialSpec{To: []netip.AddrPort{service}}, by.connections, true)
}

// hold opens connections that stay, and uses them a few times.
func hold(ctx context.Context, client *stage.Worker, dial stage.DialSpec, count int, used bool) error {
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
