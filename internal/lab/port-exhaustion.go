package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/proof"
	"linger/internal/tcp"
)

var portExhaustion = Scenario{
	Slug:  "port-exhaustion",
	Title: "a client's TIME_WAIT takes every source port towards one service",
	Cure:  "the client keeps a pool of connections",
	Size:  1000,
	build: func(ctx context.Context, b *Built, o Options) error {
		if err := narrowRange(b.client, o.Size); err != nil {
			return err
		}
		p, err := b.start(ctx, o, CloseSecond)
		if err != nil {
			return err
		}
		b.Expect = b.expectConnector(o, p)
		b.RipeAt = time.Now()
		if o.Cured {
			return pool(ctx, p, o.Size)
		}
		// A few connections stay, as they do in a program whose requests take their
		// time: they are all that tells whose the rest were.
		if err := pool(ctx, p, o.Size/10); err != nil {
			return err
		}
		// More than there are ports: some TIME_WAIT sockets are killed by a late RST
		// of the other end (RFC 1337).
		dial := DialSpec{To: []netip.AddrPort{p.service}, Count: 2 * o.Size}
		done, err := p.client.Churn(ctx, dial)
		if err != nil {
			return err
		}
		if done.NoPort == 0 {
			return errors.New("no connection failed for want of a port")
		}
		if err := awaitServed(ctx, p.server, int64(done.Opened)); err != nil {
			return err
		}
		return steady(ctx, p, dial)
	},
}

// narrowRange leaves n ports for connect() to choose from.
func narrowRange(n *Node, ports int) error {
	const low = 40_000
	return n.Set("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", low, low+ports-1))
}

// demand is a client's 400 connections in 4 s, each closed by itself, through 250
// source ports: from one or two of its addresses, to one or two addresses of the
// service, at one or two ports.
type demand struct {
	ports                             int
	twoSources, twoServices, twoPorts bool
	pooled                            bool
	set                               []setting
}

func (d demand) run(ctx context.Context, t *Trial) error {
	const connections, rate = 400, 100
	s, err := t.stage(ctx, ServeSpec{Close: CloseSecond}, d.set...)
	if err != nil {
		return err
	}
	if err := narrowRange(s.client, cmp.Or(d.ports, 250)); err != nil {
		return err
	}
	dial := DialSpec{To: []netip.AddrPort{s.service}, Count: connections, Rate: rate, Batch: 5}
	if d.twoServices {
		other := netip.AddrPortFrom(second(t.addr(s.server)), servicePort)
		if err := s.server.addAddress(other.Addr()); err != nil {
			return err
		}
		dial.To = append(dial.To, other)
	}
	if d.twoPorts {
		dial.To = append(dial.To, t.service(s.server, servicePort+1))
	}
	if len(dial.To) > 1 {
		if _, err := s.parties.server.Serve(ctx, ServeSpec{Endpoints: dial.To[1:], Close: CloseSecond}); err != nil {
			return err
		}
	}
	if d.twoSources {
		more := second(t.addr(s.client))
		if err := s.client.addAddress(more); err != nil {
			return err
		}
		dial.From = []netip.Addr{t.addr(s.client), more}
	}
	var done Dialed
	if d.pooled {
		err = pool(ctx, s.parties, connections)
	} else {
		done, err = s.parties.client.Churn(ctx, dial)
	}
	if err != nil {
		return err
	}
	t.record(done)
	if err := settled(ctx, s.client); err != nil {
		return err
	}
	ports, err := s.client.sourcePorts(ctx, servicePort)
	if err != nil {
		return err
	}
	t.Record(portsUsed.Name, float64(ports))
	return t.recordStates(ctx, 0, tcp.TimeWait, map[string]*Node{"client_time_wait": s.client})
}

// reuse is what lets connect() take over TIME_WAIT, over either family.
var reuse = setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}

var portExhaustionProof = Experiment{
	Name: "port-exhaustion", Problem: "port-exhaustion",
	Title:      "A client's TIME_WAIT takes every source port",
	Question:   "Connects fail with EADDRNOTAVAIL. What brings them back?",
	Setup:      "250 source ports, 100 connects a second for 4 s to one service, closed by the client",
	Load:       Waits,
	Quantities: []proof.Quantity{failures, noPort, succeeded, rate, clientHolds, portsUsed},
	Arms: []Arm{
		{Arm: base("250 ports, 400 connects", exhausted()...), Seconds: 5, Run: demand{}.run},
		{Arm: remedy("pool", "Keep a pool of connections", "20 connections, used again and again", proof.Works, proof.Exactly("failed", 0), proof.Exactly("client_time_wait", 0), proof.Exactly("ports", 20)), Seconds: 1, Run: demand{pooled: true}.run},
		{Arm: turning("tcp_tw_reuse", remedy("tw-reuse", "Take over TIME_WAIT that is a second old", "net.ipv4.tcp_tw_reuse=1", proof.Works, proof.Exactly("failed", 0))), Seconds: 5, Run: demand{set: []setting{reuse}}.run},
		{Arm: turning("tcp_tw_reuse", observe("tw-reuse-delay", "tcp_tw_reuse=1, with a delay of ten seconds", "net.ipv4.tcp_tw_reuse=1, tcp_tw_reuse_delay=10000", proof.NoEffect)), Seconds: 5, Run: demand{set: []setting{reuse, {atClient, "net.ipv4.tcp_tw_reuse_delay", "10000"}}}.run},
		{Arm: turning("ip_local_port_range", remedy("wider-range", "Twice as many source ports", "net.ipv4.ip_local_port_range=\"40000 40499\"", proof.Works, enough()...)), Seconds: 5, Run: demand{ports: 500}.run},
		{Arm: remedy("second-source", "A second source address", "bind(address) with IP_BIND_ADDRESS_NO_PORT", proof.Works, enough()...), Seconds: 5, Run: demand{twoSources: true}.run},
		{Arm: remedy("second-destination", "A second destination address", "two addresses of the service, in turn", proof.Works, enough()...), Seconds: 5, Run: demand{twoServices: true}.run},
		{Arm: remedy("second-port", "A second port of the service", "the service listens on two ports, used in turn", proof.Works, enough()...), Seconds: 5, Run: demand{twoPorts: true}.run},
		{Arm: turning("ip_local_port_range", observe("two-by-two", "100 ports, two source and two destination addresses: 400 pairs", "both of these, and net.ipv4.ip_local_port_range=\"40000 40099\"", proof.Works, enough()...)), Seconds: 5, Run: demand{ports: 100, twoSources: true, twoServices: true}.run},
		{Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect, exhausted()...), Seconds: 5, Run: overIPv6(demand{}.run)},
		{Arm: againOverIPv6(turning("tcp_tw_reuse", remedy("ipv6-tw-reuse", "Over IPv6: tcp_tw_reuse, whose key is of net.ipv4", "net.ipv4.tcp_tw_reuse=1", proof.Works, proof.Exactly("failed", 0)))), Seconds: 5, Run: overIPv6(demand{set: []setting{reuse}}.run)},
		{Arm: againOverIPv6(remedy("ipv6-second-source", "Over IPv6: a second source address", "bind(address) with IP_BIND_ADDRESS_NO_PORT", proof.Works, enough()...)), Seconds: 5, Run: overIPv6(demand{twoSources: true}.run)},
		{Arm: againOverIPv6(remedy("ipv6-second-destination", "Over IPv6: a second destination address", "two addresses of the service, in turn", proof.Works, enough()...)), Seconds: 5, Run: overIPv6(demand{twoServices: true}.run)},
		{Arm: why(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)), "The ports are held by TIME_WAIT, which it does not shorten."), Seconds: 5, Run: demand{set: []setting{{atClient, "net.ipv4.tcp_fin_timeout", "5"}}}.run},
		{Arm: turning("tcp_syn_retries", folklore("syn-retries", "Fewer SYN retries, a larger backlog", "net.ipv4.tcp_syn_retries=2, tcp_max_syn_backlog=65535", proof.NoEffect)), Seconds: 5, Run: demand{set: []setting{{atClient, "net.ipv4.tcp_syn_retries", "2"}, {atServer, "net.ipv4.tcp_max_syn_backlog", "65535"}}}.run},
		{Arm: turning("tcp_tw_reuse", folklore("service-reuse", "tcp_tw_reuse at the service", "net.ipv4.tcp_tw_reuse=1 on the other host", proof.NoEffect)), Seconds: 5, Run: demand{set: []setting{{atServer, "net.ipv4.tcp_tw_reuse", "1"}}}.run},
	},
}

// exhausted and enough are what 400 connects come to with 250 pairs of a port and a
// destination, and with 400.
func exhausted() []proof.Bound {
	return []proof.Bound{proof.Exactly("failed", 150), proof.Exactly(noPort.Name, 150), proof.Exactly("client_time_wait", 250), proof.Exactly("ports", 250)}
}

func enough() []proof.Bound {
	return []proof.Bound{proof.Exactly("failed", 0), proof.Exactly("client_time_wait", 400)}
}

// connectCost fills a range of source ports and records how long connect() takes in a
// tenth of it. It looks through the ports of one parity first, then through the others
// (__inet_hash_connect of net/ipv4/inet_hashtables.c).
func connectCost(tenth int) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		const ports = 4000
		s, err := t.stage(ctx, ServeSpec{Close: CloseSecond})
		if err != nil {
			return err
		}
		if err := narrowRange(s.client, ports); err != nil {
			return err
		}
		done, err := s.parties.client.Churn(ctx, DialSpec{To: []netip.AddrPort{s.service}, Count: ports * 98 / 100, Latencies: true})
		if err != nil {
			return err
		}
		part := done.Micros[len(done.Micros)*tenth/10 : len(done.Micros)*(tenth+1)/10]
		t.Record("connect_us", proof.IntervalOf(part).Median)
		t.Record("failed", float64(done.NoPort+done.Failed))
		if tenth > 0 {
			return nil // the base line has drawn the whole curve
		}
		curve := proof.Series{Name: "connect() as the range fills", XUnit: "% of the ports used", YUnit: "µs"}
		const steps = 40
		for i := range steps {
			part := done.Micros[len(done.Micros)*i/steps : len(done.Micros)*(i+1)/steps]
			curve.X = append(curve.X, 98*float64(i+1)/steps)
			curve.Y = append(curve.Y, proof.IntervalOf(part).Median)
		}
		t.Plot(curve)
		return nil
	}
}

var connectCostProof = Experiment{
	Name: "connect-latency", Problem: "port-exhaustion",
	Title:    "connect() searches for a free port",
	Question: "What does a nearly full range of source ports cost before connects fail?",
	Setup:    "4,000 source ports, filled to 98 % by connections to one service; the median of a tenth of the connects",
	Load:     Alone,
	Quantities: []proof.Quantity{
		{Name: "connect_us", Title: "time of a connect()", Unit: "µs", Better: proof.Less, Margin: proof.Margin{Absolute: 2, Share: 0.2}},
		failures,
	},
	Arms: []Arm{
		{Arm: base("the first tenth of the range"), Seconds: 2, Run: connectCost(0)},
		{Arm: observe("seventh-tenth", "Beyond the half: one parity is taken, and searched in vain each time", "6 of 10 ports are in TIME_WAIT", proof.Harmful), Seconds: 2, Run: connectCost(6)},
		{Arm: observe("last-tenth", "The last tenth of the range", "9 of 10 ports are in TIME_WAIT", proof.Harmful), Seconds: 2, Run: connectCost(9)},
	},
}
