package cases

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/proof"
	"linger/internal/setting"
)

var twRecycle = Case{
	Scenario: &Scenario{
		Slug:   "tw-recycle",
		Title:  "net.ipv4.tcp_tw_recycle is on",
		Cure:   "it is off",
		Cannot: "kernel 4.12 removed net.ipv4.tcp_tw_recycle",
	},
	Experiments: []lab.Experiment{twRecycleProof},
}

// recycling is what two clients behind one NAT met.
type recycling struct {
	first, second connects
	// dropped are the SYNs that the emulated rule dropped.
	dropped int
	// ladder is that of one connect of the second client.
	ladder wire.Ladder
}

// connects are attempts to connect.
type connects struct {
	opened, failed int
	// latencies are in milliseconds, of those that were opened, in their order.
	latencies []float64
}

// recycleArm is a way to run the experiment.
type recycleArm struct {
	off bool
	// secondWithout takes the second client's time stamps away.
	secondWithout bool
}

const (
	recycleConnects = 5
	// connectPatience is how long a client waits: long enough for its SYN to be sent
	// again, after a second.
	connectPatience = 2500 * time.Millisecond
	// clockBehind is how much later the second client was started, in milliseconds.
	clockBehind = 60_000
)

// measureRecycle connects from two clients behind a NAT, of which the second was
// started a minute later, to a server that closes first; on the way to the server is
// the emulated rule.
func measureRecycle(ctx context.Context, on stage.Wiring, arm recycleArm) (result recycling, err error) {
	t, err := newMasqueraded(on)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	service, err := t.serve(ctx, on.IPv6)
	if err != nil {
		return result, err
	}
	shiftClock(t.toSecond, clockBehind)
	if arm.secondWithout {
		if err := t.second.Set(setting.Timestamps, "0"); err != nil {
			return result, err
		}
	}
	if !arm.off {
		t.toServer.SetRules(newRecycle(service).rule())
	}
	if result.first, err = connectSeveral(ctx, t.first, on.IPv6, 40000, recycleConnects, service); err != nil {
		return result, err
	}
	if err := t.awaitTimeWaits(ctx, result.first.opened); err != nil {
		return result, err
	}
	since := t.toServer.Now()
	if result.second, err = connectSeveral(ctx, t.second, on.IPv6, 41000, recycleConnects, service); err != nil {
		return result, err
	}
	for _, p := range t.toServer.Passed(0) {
		if p.Fate == wire.Dropped {
			result.dropped++
		}
	}
	result.ladder = firstConnect(t.toServer, since)
	return result, nil
}

// serve starts the server, which closes first.
func (t *masqueraded) serve(ctx context.Context, ipv6 bool) (service netip.AddrPort, err error) {
	service = netip.AddrPortFrom(t.server.Addr(ipv6), stage.ServicePort)
	w, err := t.server.Start(ctx, stage.ServerProcess)
	if err != nil {
		return service, err
	}
	_, err = w.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: stage.CloseFirst})
	return service, err
}

// connectSeveral connects from as many ports at once, and waits for the server to
// close.
func connectSeveral(ctx context.Context, n *stage.Node, ipv6 bool, port uint16, count int, service netip.AddrPort) (connects, error) {
	var (
		wait    sync.WaitGroup
		results = make([]connected, count)
	)
	for i := range results {
		from := netip.AddrPortFrom(n.Addr(ipv6), port+uint16(i))
		wait.Go(func() { results[i] = connectOnce(ctx, n, from, service) })
	}
	wait.Wait()
	return sumUp(results)
}

// connected is one attempt; err says why it could not be made.
type connected struct {
	opened bool
	after  time.Duration
	err    error
}

// connectOnce connects and waits for the server to close. That the connection does not
// come about in time, or is reset, is a result and no error.
func connectOnce(ctx context.Context, n *stage.Node, from, to netip.AddrPort) (c connected) {
	s, err := n.Socket(from)
	if err != nil {
		return connected{err: err}
	}
	defer s.Close()
	patient, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	began := time.Now()
	if err := s.Connect(patient, to); err != nil {
		if ctx.Err() != nil {
			return connected{err: context.Cause(ctx)}
		}
		return connected{}
	}
	c = connected{opened: true, after: time.Since(began)}
	c.err = s.ReadEnd(ctx)
	return c
}

func sumUp(results []connected) (c connects, err error) {
	for _, r := range results {
		if r.opened {
			c.opened++
			c.latencies = append(c.latencies, float64(r.after)/float64(time.Millisecond))
		} else if r.err == nil {
			c.failed++
		}
		err = errors.Join(err, r.err)
	}
	return c, err
}

func recycled(title string, arm recycleArm) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		r, err := measureRecycle(ctx, t.Wiring(), arm)
		if err != nil {
			return err
		}
		t.Record("failed", float64(r.second.failed))
		t.Record("first_opened", float64(r.first.opened))
		t.Record("dropped", float64(r.dropped))
		t.Draw(ladderOf("A connect of the second client, "+title, r.ladder))
		return nil
	}
}

var twRecycleProof = lab.Experiment{
	Name: "tw-recycle", Problem: "tw-recycle",
	Title:    "tcp_tw_recycle, emulated, and two clients behind a NAT",
	Question: "Kernels before 4.12 dropped SYNs whose time stamp was older than the last of their address. Whom does that hit?",
	Setup: "an emulation of that rule in user space, in front of a real server; two clients behind a real masquerade, the " +
		"second started a minute later; 5 connects each, 2.5 s of patience",
	Load:  lab.Waits,
	Wired: true,
	Quantities: []proof.Quantity{
		{Name: "failed", Title: "connects of the second client that failed", Unit: "connects", Better: proof.Less},
		{Name: "first_opened", Title: "connects of the first client that succeeded", Unit: "connects"},
		{Name: "dropped", Title: "SYNs that the emulated rule dropped", Unit: "segments"},
	},
	Arms: []lab.Arm{
		{
			Arm: base("the emulated rule is on", proof.Exactly("failed", recycleConnects),
				proof.Exactly("first_opened", recycleConnects)),
			Seconds: 3, Run: recycled("the rule is on", recycleArm{}),
		},
		{
			Arm: turning("tcp_tw_recycle", remedy("off", "The emulated rule is off", "net.ipv4.tcp_tw_recycle=0", proof.Works,
				proof.Exactly("failed", 0))),
			Seconds: 1, Run: recycled("the rule is off", recycleArm{off: true}),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "an IPv6 masquerade", proof.NoEffect,
				proof.Exactly("failed", recycleConnects)),
			Seconds: 3, Run: lab.OverIPv6(recycled("over IPv6", recycleArm{})),
		},
		{
			Arm: turning("tcp_timestamps", folklore("no-time-stamps", "The second client sends no time stamps",
				"net.ipv4.tcp_timestamps=0 at that client", proof.NoEffect)),
			Seconds: 3, Run: recycled("which sends no time stamps", recycleArm{secondWithout: true}),
		},
	},
}
