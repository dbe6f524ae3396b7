package lab

import (
	"context"
	"net/netip"
	"time"

	"linger/internal/proof"
	"linger/internal/tcp"
)

// leakAge is the age from which CLOSE_WAIT is more than a program that is about to
// close; a little more, since ages are read with a step of the kernel's clock.
const leakAge = 3500 * time.Millisecond

var closeWaitLeak = Scenario{
	Slug:  "close-wait-leak",
	Title: "a service does not close connections that its client has closed",
	Cure:  "the service closes them",
	Size:  200,
	build: func(ctx context.Context, b *Built, o Options) error {
		closing := CloseNever
		if o.Cured {
			closing = CloseSecond
		}
		p, err := b.start(ctx, o, closing)
		if err != nil {
			return err
		}
		b.Expect = b.expectAcceptor(p)
		// With an end in sight, as it is on a real host.
		if err := p.server.LimitDescriptors(ctx, uint64(4*o.Size)); err != nil {
			return err
		}
		if err := burst(ctx, p, DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size}); err != nil {
			return err
		}
		b.RipeAt = time.Now().Add(leakAge)
		return nil
	},
}

// leaked has a client close 100 connections, and counts what is left of them at the
// service some seconds later.
func leaked(closing Closing, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, ServeSpec{Close: closing}, set...)
		if err != nil {
			return err
		}
		if err := burst(ctx, s.parties, DialSpec{To: []netip.AddrPort{s.service}, Count: 100}); err != nil {
			return err
		}
		sleep(ctx, leakAge)
		return t.recordStates(ctx, servicePort, tcp.CloseWait, map[string]*Node{"close_wait": s.server})
	}
}

var closeWaitLeakProof = Experiment{
	Name: "close-wait-leak", Problem: "close-wait-leak",
	Title:    "A program does not close what its peer has closed",
	Question: "Which setting ends CLOSE_WAIT?",
	Setup:    "100 connections that the client closes and the service does not; counted 3.5 s later",
	Load:     Waits,
	Quantities: []proof.Quantity{
		{Name: "close_wait", Title: "CLOSE_WAIT at the service", Unit: "sockets", Better: proof.Less},
	},
	Arms: []Arm{
		{Arm: base("the service does not close", proof.Exactly("close_wait", 100)), Seconds: 5, Run: leaked(CloseNever)},
		{Arm: remedy("close", "Let the program close", "close() at the end of input", proof.Works, proof.Exactly("close_wait", 0)), Seconds: 5, Run: leaked(CloseSecond)},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=1", proof.NoEffect)), Seconds: 5, Run: leaked(CloseNever, setting{atServer, "net.ipv4.tcp_fin_timeout", "1"})},
		{Arm: why(turning("tcp_keepalive_time", folklore("keepalive", "A lower tcp_keepalive_time", "net.ipv4.tcp_keepalive_time=1, _intvl=1, _probes=1", proof.NoEffect)), "The kernel has nothing to wait for: the peer has closed, and the program has not."), Seconds: 5, Run: leaked(CloseNever, setting{atServer, "net.ipv4.tcp_keepalive_time", "1"}, setting{atServer, "net.ipv4.tcp_keepalive_intvl", "1"}, setting{atServer, "net.ipv4.tcp_keepalive_probes", "1"})},
		{Arm: turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), Seconds: 5, Run: leaked(CloseNever, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
	},
}
