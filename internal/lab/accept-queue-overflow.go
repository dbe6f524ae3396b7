package lab

import (
	"context"
	"net/netip"

	"linger/internal/proof"
)

// shortBacklog is filled in a second.
const shortBacklog = 16

var acceptQueueOverflow = Scenario{
	Slug:  "accept-queue-overflow",
	Title: "a service does not accept, and its queue of 16 is full",
	Cure:  "the service accepts",
	Size:  40,
	build: func(ctx context.Context, b *Built, o Options) error {
		server, err := b.server.Start(ctx, serverProcess)
		if err != nil {
			return err
		}
		p := parties{server: server, service: netip.AddrPortFrom(b.server.Addr(o.IPv6), servicePort)}
		b.Expect = b.expectAcceptor(p)
		spec := ServeSpec{Endpoints: []netip.AddrPort{p.service}, Close: AcceptNever, Backlog: shortBacklog}
		if o.Cured {
			spec.Close = CloseSecond
		}
		if _, err := server.Serve(ctx, spec); err != nil {
			return err
		}
		if p.client, err = b.client.Start(ctx, clientProcess); err != nil {
			return err
		}
		// Each attempt gives up before the kernel would send its SYN again.
		dial := DialSpec{To: []netip.AddrPort{p.service}, Count: o.Size, Batch: 1, PatienceMS: 100}
		if _, err := p.client.Churn(ctx, dial); err != nil {
			return err
		}
		dial.Count, dial.Rate = 0, 10
		return p.client.Begin(ctx, dial)
	},
}

// queued tries 40 connects to a service that does not accept, and gives each a tenth
// of a second: less than the kernel takes to send a SYN again.
func queued(serve ServeSpec, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		s, err := t.stage(ctx, serve, set...)
		if err != nil {
			return err
		}
		patience := int64(150)
		if serve.Close != AcceptNever {
			patience = 5000 // a service that accepts may be late on a busy machine
		}
		done, err := s.parties.client.Hold(ctx, DialSpec{To: []netip.AddrPort{s.service}, Count: 40, PatienceMS: patience})
		if err != nil {
			return err
		}
		t.record(done)
		overflows, err := s.server.counter("TcpExtListenOverflows")
		if err != nil {
			return err
		}
		t.Record("overflows", overflows)
		return nil
	}
}

var acceptQueueOverflowProof = Experiment{
	Name: "accept-queue-overflow", Problem: "accept-queue-overflow",
	Title:    "A listener's queue is full",
	Question: "Connects time out, and TIME_WAIT is blamed. What helps?",
	Setup:    "a service with a backlog of 16 that accepts nothing; 40 connects",
	Load:     Waits,
	Quantities: []proof.Quantity{
		failures, timedOut, succeeded, {Name: "overflows", Title: "ListenOverflows", Unit: "segments"},
	},
	Arms: []Arm{
		{Arm: base("nobody accepts", proof.Exactly("failed", 23), proof.Exactly("EINPROGRESS", 23), proof.Exactly("opened", 17)), Seconds: 5, Run: queued(ServeSpec{Close: AcceptNever, Backlog: shortBacklog})},
		{Arm: remedy("accept", "Let the service accept", "it calls accept()", proof.Works, proof.Exactly("failed", 0)), Seconds: 1, Run: queued(ServeSpec{Close: CloseSecond, Backlog: shortBacklog})},
		{Arm: remedy("backlog", "A longer queue", "listen(fd, 128)", proof.Works, proof.Exactly("failed", 0)), Seconds: 1, Run: queued(ServeSpec{Close: AcceptNever, Backlog: 128})},
		{Arm: why(turning("somaxconn", folklore("somaxconn", "net.core.somaxconn alone", "net.core.somaxconn=65535", proof.NoEffect)), "The program has asked for 16 in listen(), and the smaller one counts."), Seconds: 5, Run: queued(ServeSpec{Close: AcceptNever, Backlog: shortBacklog}, setting{atServer, "net.core.somaxconn", "65535"})},
		{Arm: turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), Seconds: 5, Run: queued(ServeSpec{Close: AcceptNever, Backlog: shortBacklog}, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
		{Arm: turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)), Seconds: 5, Run: queued(ServeSpec{Close: AcceptNever, Backlog: shortBacklog}, setting{atServer, "net.ipv4.tcp_fin_timeout", "5"})},
	},
}
