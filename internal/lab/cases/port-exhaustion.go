package cases

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var portExhaustion = Case{
	Scenario: &Scenario{
		Slug:  "port-exhaustion",
		Title: "a client's TIME_WAIT takes every source port towards one service",
		Cure:  "the client keeps a pool of connections",
		Size:  1000,
		Make:  makePortExhaustion,
		Draw: Draw{
			Sizes: [2]int{300, 3000}, Rate: anyRate, OneHost: true, Sharable: true, Exhausts: true,
			Ports: func(o Options) int { return o.Size },
		},
		Consequences: []diagnose.Slug{"client-closes-first", "tw-reuse", "connection-churn"},
	},
	Experiments: []lab.Experiment{portExhaustionProof, connectCostProof},
}

func makePortExhaustion(ctx context.Context, b *Built, o Options) error {
	if err := b.ClientNode.NarrowRange(o.Size); err != nil {
		return err
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	b.RipeAt = time.Now()
	if o.Cured {
		return p.Pool(ctx, o.Size)
	}
	// A few connections stay, as they do in a program whose requests take their
	// time: they are all that tells whose the rest were.
	if err := p.Pool(ctx, o.Size/10); err != nil {
		return err
	}
	// More than there are ports: some TIME_WAIT sockets are killed by a late RST
	// of the other end (RFC 1337).
	dial := stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: 2 * o.Size}
	done, err := p.Client.Churn(ctx, dial)
	if err != nil {
		return err
	}
	if done.NoPort == 0 {
		return errors.New("no connection failed for want of a port")
	}
	if err := p.Server.AwaitServed(ctx, int64(done.Opened)); err != nil {
		return err
	}
	return p.Steady(ctx, dial, o.Rate)
}

// demand is a client's 400 connections in 4 s, each closed by itself, through 250
// source ports: from one or two of its addresses, to one or two addresses of the
// service, at one or two ports.
type demand struct {
	ports                             int
	twoSources, twoServices, twoPorts bool
	pooled                            bool
	set                               []lab.Sysctl
}

func (d demand) run(ctx context.Context, t *lab.Trial) error {
	const connections, rate = 400, 100
	s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond}, d.set...)
	if err != nil {
		return err
	}
	if err := s.ClientNode.NarrowRange(cmp.Or(d.ports, 250)); err != nil {
		return err
	}
	dial, err := d.endpoints(ctx, t, s)
	if err != nil {
		return err
	}
	dial.Count, dial.Rate, dial.Batch = connections, rate, 5
	var done stage.Dialed
	if d.pooled {
		err = s.Pool(ctx, connections)
	} else {
		done, err = s.Client.Churn(ctx, dial)
	}
	if err != nil {
		return err
	}
	t.RecordDialed(done)
	if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode); err != nil {
		return err
	}
	ports, err := s.ClientNode.SourcePorts(ctx, stage.ServicePort)
	if err != nil {
		return err
	}
	t.Record(lab.PortsUsed.Name, float64(ports))
	return t.RecordStates(ctx, 0, tcp.TimeWait, map[string]*stage.Node{"client_time_wait": s.ClientNode})
}

// endpoints makes what connections are to come from and to go to.
func (d demand) endpoints(ctx context.Context, t *lab.Trial, s lab.Scene) (dial stage.DialSpec, err error) {
	dial.To = []netip.AddrPort{s.Service}
	if d.twoServices {
		other, err := second(s.ServerNode, t.Addr(s.ServerNode))
		if err != nil {
			return dial, err
		}
		dial.To = append(dial.To, netip.AddrPortFrom(other, stage.ServicePort))
	}
	if d.twoPorts {
		dial.To = append(dial.To, t.Service(s.ServerNode, stage.ServicePort+1))
	}
	if len(dial.To) > 1 {
		if _, err := s.Server.Serve(ctx, stage.ServeSpec{Endpoints: dial.To[1:], Close: stage.CloseSecond}); err != nil {
			return dial, err
		}
	}
	if d.twoSources {
		other, err := second(s.ClientNode, t.Addr(s.ClientNode))
		if err != nil {
			return dial, err
		}
		dial.From = []netip.Addr{t.Addr(s.ClientNode), other}
	}
	return dial, nil
}

// reuse is what lets connect() take over TIME_WAIT, over either family.
var reuse = lab.AtClient(setting.TWReuse, "1")

var portExhaustionProof = lab.Experiment{
	Name: "port-exhaustion", Problem: "port-exhaustion",
	Title:      "A client's TIME_WAIT takes every source port",
	Question:   "Connects fail with EADDRNOTAVAIL. What brings them back?",
	Setup:      "250 source ports, 100 connects a second for 4 s to one service, closed by the client",
	Load:       lab.Waits,
	Quantities: []proof.Quantity{lab.Failures, lab.NoPort, lab.Succeeded, lab.PerSecond, lab.ClientTimeWait, lab.PortsUsed},
	Arms: []lab.Arm{
		{Arm: base("250 ports, 400 connects", exhausted()...), Seconds: 5, Run: demand{}.run},
		{
			Arm: remedy("pool", "Keep a pool of connections", "20 connections, used again and again", proof.Works,
				proof.Exactly("failed", 0), proof.Exactly("client_time_wait", 0), proof.Exactly("ports", 20)),
			Seconds: 1, Run: demand{pooled: true}.run,
		},
		{
			Arm: turning("tcp_tw_reuse", remedy("tw-reuse", "Take over TIME_WAIT that is a second old", "net.ipv4.tcp_tw_reuse=1", proof.Works,
				proof.Exactly("failed", 0))),
			Seconds: 5, Run: demand{set: []lab.Sysctl{reuse}}.run,
		},
		{
			Arm: turning("tcp_tw_reuse", observe("tw-reuse-delay", "tcp_tw_reuse=1, with a delay of ten seconds",
				"net.ipv4.tcp_tw_reuse=1, tcp_tw_reuse_delay=10000", proof.NoEffect)),
			Seconds: 5, Run: demand{set: []lab.Sysctl{reuse, lab.AtClient(setting.TWReuseDelay, "10000")}}.run,
		},
		{
			Arm: turning("ip_local_port_range", remedy("wider-range", "Twice as many source ports", "net.ipv4.ip_local_port_range=\"40000 40499\"",
				proof.Works, enough()...)),
			Seconds: 5, Run: demand{ports: 500}.run,
		},
		{
			Arm: remedy("second-source", "A second source address", "bind(address) with IP_BIND_ADDRESS_NO_PORT",
				proof.Works, enough()...),
			Seconds: 5, Run: demand{twoSources: true}.run,
		},
		{
			Arm: remedy("second-destination", "A second destination address", "two addresses of the service, in turn",
				proof.Works, enough()...),
			Seconds: 5, Run: demand{twoServices: true}.run,
		},
		{
			Arm: remedy("second-port", "A second port of the service", "the service listens on two ports, used in turn",
				proof.Works, enough()...),
			Seconds: 5, Run: demand{twoPorts: true}.run,
		},
		{
			Arm: turning("ip_local_port_range", observe("two-by-two", "100 ports, two source and two destination addresses: 400 pairs",
				"both of these, and net.ipv4.ip_local_port_range=\"40000 40099\"", proof.Works, enough()...)),
			Seconds: 5, Run: demand{ports: 100, twoSources: true, twoServices: true}.run,
		},
		{
			Arm:     observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect, exhausted()...),
			Seconds: 5, Run: lab.OverIPv6(demand{}.run),
		},
		{
			Arm: againOverIPv6(turning("tcp_tw_reuse", remedy("ipv6-tw-reuse", "Over IPv6: tcp_tw_reuse, whose key is of net.ipv4",
				"net.ipv4.tcp_tw_reuse=1", proof.Works, proof.Exactly("failed", 0)))),
			Seconds: 5, Run: lab.OverIPv6(demand{set: []lab.Sysctl{reuse}}.run),
		},
		{
			Arm: againOverIPv6(remedy("ipv6-second-source", "Over IPv6: a second source address",
				"bind(address) with IP_BIND_ADDRESS_NO_PORT", proof.Works, enough()...)),
			Seconds: 5, Run: lab.OverIPv6(demand{twoSources: true}.run),
		},
		{
			Arm: againOverIPv6(remedy("ipv6-second-destination", "Over IPv6: a second destination address",
				"two addresses of the service, in turn", proof.Works, enough()...)),
			Seconds: 5, Run: lab.OverIPv6(demand{twoServices: true}.run),
		},
		{
			Arm: why(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
				"The ports are held by TIME_WAIT, which it does not shorten."),
			Seconds: 5, Run: demand{set: []lab.Sysctl{lab.AtClient(setting.FinTimeout, "5")}}.run,
		},
		{
			Arm: turning("tcp_syn_retries", folklore("syn-retries", "Fewer SYN retries, a larger backlog",
				"net.ipv4.tcp_syn_retries=2, tcp_max_syn_backlog=65535", proof.NoEffect)),
			Seconds: 5, Run: demand{set: []lab.Sysctl{lab.AtClient("net.ipv4.tcp_syn_retries", "2"),
				lab.AtServer(setting.MaxSYNBacklog, "65535")}}.run,
		},
		{
			Arm: turning("tcp_tw_reuse", folklore("service-reuse", "tcp_tw_reuse at the service", setting.TWReuse+"=1 on the other host",
				proof.NoEffect)),
			Seconds: 5, Run: demand{set: []lab.Sysctl{lab.AtServer(setting.TWReuse, "1")}}.run,
		},
	},
}

// exhausted and enough are what 400 connects come to with 250 pairs of a port and a
// destination, and with 400.
func exhausted() []proof.Bound {
	return []proof.Bound{proof.Exactly("failed", 150), proof.Exactly(lab.NoPort.Name, 150), proof.Exactly("client_time_wait", 250),
		proof.Exactly("ports", 250)}
}

func enough() []proof.Bound {
	return []proof.Bound{proof.Exactly("failed", 0), proof.Exactly("client_time_wait", 400)}
}

// connectCost fills a range of source ports and records how long connect() takes in a
// tenth of it. It looks through the ports of one parity first, then through the others
// (__inet_hash_connect of net/ipv4/inet_hashtables.c).
func connectCost(tenth int) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		const ports = 4000
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond})
		if err != nil {
			return err
		}
		if err := s.ClientNode.NarrowRange(ports); err != nil {
			return err
		}
		done, err := s.Client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: ports * 98 / 100, Latencies: true})
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

var connectCostProof = lab.Experiment{
	Name: "connect-latency", Problem: "port-exhaustion",
	Title:    "connect() searches for a free port",
	Question: "What does a nearly full range of source ports cost before connects fail?",
	Setup:    "4,000 source ports, filled to 98 % by connections to one service; the median of a tenth of the connects",
	Load:     lab.Alone,
	Quantities: []proof.Quantity{
		{Name: "connect_us", Title: "time of a connect()", Unit: "µs", Better: proof.Less,
			Margin: proof.Margin{Absolute: 2, Share: 0.2}},
		lab.Failures,
	},
	Arms: []lab.Arm{
		{Arm: base("the first tenth of the range"), Seconds: 2, Run: connectCost(0)},
		{
			Arm: observe("seventh-tenth", "Beyond the half: one parity is taken, and searched in vain each time",
				"6 of 10 ports are in TIME_WAIT", proof.Harmful),
			Seconds: 2, Run: connectCost(6),
		},
		{
			Arm:     observe("last-tenth", "The last tenth of the range", "9 of 10 ports are in TIME_WAIT", proof.Harmful),
			Seconds: 2, Run: connectCost(9),
		},
	},
}
