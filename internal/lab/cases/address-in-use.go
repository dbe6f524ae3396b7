package cases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var addressInUse = Case{
	Scenario: &Scenario{
		Slug:  "address-in-use",
		Title: "a service has ended, and an outgoing connection of another program sits on its port",
		Cure:  "the outgoing connection has another port",
		Size:  100,
		Make:  makeAddressInUse,
		Draw:  Draw{Sizes: [2]int{20, 400}},
	},
	Experiments: []lab.Experiment{addressInUseProof},
}

func makeAddressInUse(ctx context.Context, b *Built, o Options) error {
	// The clients, and the destination of the outgoing connection.
	p, err := b.start(ctx, o, stage.CloseFirst)
	if err != nil {
		return err
	}
	done, err := p.Client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size, PeerCloses: true})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %s", done.Failed, o.Size, done.FirstFailure)
	}
	if err != nil {
		return err
	}
	other := netip.AddrPortFrom(b.ClientNode.Addr(o.IPv6), stage.ServicePort+1)
	if _, err := p.Client.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{other}, Close: stage.CloseSecond}); err != nil {
		return err
	}
	if err := p.Server.Close(); err != nil {
		return err
	}
	blocker, err := b.ServerNode.Start(ctx, stage.ClientProcess)
	if err != nil {
		return err
	}
	dial := stage.DialSpec{To: []netip.AddrPort{other}, Count: 1, FromPort: stage.ServicePort}
	if o.Cured {
		dial.FromPort = 0
	}
	done, err = blocker.Hold(ctx, dial)
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("connect from port %d: %s", stage.ServicePort, done.FirstFailure)
	}
	b.Expect = b.expectAcceptor(p)
	b.Expect.Owner = stage.ClientProcess
	b.Expect.Local = tcp.Endpoint{Addr: p.Service.Addr(), Port: stage.ServicePort}
	return err
}

// restarted stops a service that has closed a connection first, and starts it again.
func restarted(oldReuses, newReuses bool, wait time.Duration, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseFirst, NoReuseAddress: !oldReuses}, set...)
		if err != nil {
			return err
		}
		if err := s.Burst(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: 10, PeerCloses: true}); err != nil {
			return err
		}
		if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode, s.ServerNode); err != nil {
			return err
		}
		if err := s.Server.Close(); err != nil {
			return err
		}
		stage.Sleep(ctx, wait)
		again, err := s.ServerNode.Start(ctx, stage.ServerProcess)
		if err != nil {
			return err
		}
		refused := 0.0
		if _, err := again.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{s.Service},
			NoReuseAddress: !newReuses}); err != nil {
			if !errors.Is(err, unix.EADDRINUSE) {
				return err
			}
			refused = 1
		}
		t.Record("refused", refused)
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait, map[string]*stage.Node{"server_time_wait": s.ServerNode})
	}
}

var addressInUseProof = lab.Experiment{
	Name: "address-in-use", Problem: "address-in-use",
	Title:    "A service cannot bind its port again",
	Question: "bind() says EADDRINUSE after a restart. What lets it through?",
	Setup:    "a service that has closed 10 connections first, stopped and started again",
	Load:     lab.Waits,
	Quantities: []proof.Quantity{
		{Name: "refused", Title: "restarts that fail with EADDRINUSE", Unit: "restarts", Better: proof.Less}, lab.ServerTimeWait,
	},
	Arms: []lab.Arm{
		{Arm: base("without SO_REUSEADDR", proof.Exactly("refused", 1)), Seconds: 1, Run: restarted(false, false, 0)},
		{
			Arm: turning("SO_REUSEADDR", remedy("reuseaddr", "SO_REUSEADDR on the listener, before and after", "setsockopt(SO_REUSEADDR)",
				proof.Works, proof.Exactly("refused", 0))),
			Seconds: 1, Run: restarted(true, true, 0),
		},
		{
			Arm: why(turning("SO_REUSEADDR", observe("new-one-only", "SO_REUSEADDR on the new listener alone",
				"setsockopt(SO_REUSEADDR) after the restart", proof.NoEffect)),
				"The old socket has to have had it as well."),
			Seconds: 1, Run: restarted(false, true, 0),
		},
		{
			Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "tcp_fin_timeout=1, and 3 s of waiting", "net.ipv4.tcp_fin_timeout=1",
				proof.NoEffect)),
			Seconds: 4, Run: restarted(false, false, 3*time.Second, lab.AtServer(setting.FinTimeout, "1")),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse, and 3 s of waiting", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 4, Run: restarted(false, false, 3*time.Second, lab.AtServer(setting.TWReuse, "1")),
		},
	},
}
