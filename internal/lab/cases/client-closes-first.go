package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

var clientClosesFirst = Case{
	Scenario: &Scenario{
		Slug:  "client-closes-first",
		Title: "a client opens a connection for each request, and closes it first",
		Cure:  "the client keeps a pool of connections",
		Size:  2000,
		Make:  makeClientClosesFirst,
		Draw: Draw{
			Sizes: [2]int{1600, 4000}, Rate: minutely, OneHost: true, Tightens: true, Sharable: true,
			Ports: clientClosesFirstPorts,
		},
		Consequences: []diagnose.Slug{"tw-reuse"},
	},
	Experiments: []lab.Experiment{clientClosesFirstProof, lingerZeroProof},
}

// clientClosesFirstPorts are all where no limit is tight.
func clientClosesFirstPorts(o Options) int {
	if o.Tight {
		return tightFactor * o.Size
	}
	return DefaultPorts
}

func makeClientClosesFirst(ctx context.Context, b *Built, o Options) error {
	if o.Tight {
		if err := b.ClientNode.NarrowRange(tightFactor * o.Size); err != nil {
			return err
		}
	}
	p, err := b.start(ctx, o, stage.CloseSecond)
	if err != nil {
		return err
	}
	b.Expect = b.expectConnector(o, p)
	if o.Cured {
		return p.Pool(ctx, o.Size)
	}
	if err := p.BurstThenSteady(ctx, stage.DialSpec{To: []netip.AddrPort{p.Service}, Count: o.Size}, o.Rate); err != nil {
		return err
	}
	// Until then it would look as if the range were to run out within the minute.
	b.RipeAt = time.Now().Add(QuietAfterBurst)
	return nil
}

// sendAndClose has a client send a hundred messages, each on a connection of its own,
// to a service that is slow to read, and records what arrives and who holds TIME_WAIT.
func sendAndClose(abort bool) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		// A small window, so that most of a message waits in the send buffer at close().
		s, err := t.Scene(ctx, stage.ServeSpec{Close: stage.CloseSecond, Sink: true, SlowMS: 5},
			lab.AtServer("net.ipv4.tcp_rmem", "4096 16384 16384"))
		if err != nil {
			return err
		}
		const messages, size = 40, 128 << 10
		done, err := s.Client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{s.Service}, Count: messages, Batch: 8, Send: size,
			Abort: abort})
		if err != nil {
			return err
		}
		if done.Opened != messages {
			return fmt.Errorf("%d of %d messages were sent: %s", done.Opened, messages, done.FirstFailure)
		}
		if err := stage.Settled(ctx, stage.ServicePort, s.ClientNode); err != nil {
			return err
		}
		if err := awaitEnds(ctx, s.Server, messages); err != nil {
			return err
		}
		served, err := s.Server.Served(ctx)
		if err != nil {
			return err
		}
		t.Record("bytes_lost", float64(messages*size)-float64(served.Bytes))
		t.Record("peer_resets", float64(served.Reset))
		return t.RecordStates(ctx, stage.ServicePort, tcp.TimeWait, map[string]*stage.Node{"client_time_wait": s.ClientNode})
	}
}

// awaitEnds waits until a service has seen the end of n connections.
func awaitEnds(ctx context.Context, server *stage.Worker, n int64) error {
	for deadline := time.Now().Add(30 * time.Second); ; stage.Sleep(ctx, 10*time.Millisecond) {
		served, err := server.Served(ctx)
		if err != nil || served.Ended >= n {
			return err
		}
		// A connection that is reset before it was accepted is never seen.
		if queue := served.Accepted; time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d of %d connections have ended, %d were accepted", served.Ended, n, queue)
		}
	}
}

var clientClosesFirstProof = lab.Experiment{
	Name: "client-closes-first", Problem: "client-closes-first",
	Title:      "A client closes each connection first",
	Question:   "What takes the TIME_WAIT away from a client?",
	Setup:      "1,000 requests, each on a connection that the client closes first",
	Quantities: []proof.Quantity{less(lab.ClientTimeWait), lab.ServerTimeWait, lab.Failures},
	Arms: []lab.Arm{
		{
			Arm: base("a connection for each request, closed by the client", proof.Exactly("client_time_wait", 1000),
				proof.Exactly("server_time_wait", 0)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, false),
		},
		{
			Arm: remedy("pool", "Keep a pool of connections", "20 connections, used again and again", proof.Works,
				proof.Exactly("client_time_wait", 0)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, true),
		},
		{
			Arm: remedy("peer-closes", "Let the service close first", "the client waits for the end of the answer",
				proof.Works, proof.Exactly("client_time_wait", 0), proof.Exactly("server_time_wait", 1000)),
			Seconds: 2, Run: churned(ServerCloses, untilClosed, false),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "an IPv6 address of the service", proof.NoEffect,
				proof.Exactly("client_time_wait", 1000)),
			Seconds: 2, Run: lab.OverIPv6(churned(clientCloses, stage.DialSpec{}, false)),
		},
		{
			Arm:     turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse, to have fewer of them", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, false, lab.AtClient(setting.TWReuse, "1")),
		},
		{
			Arm:     turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)),
			Seconds: 2, Run: churned(clientCloses, stage.DialSpec{}, false, lab.AtClient(setting.FinTimeout, "5")),
		},
	},
}

var lingerZeroProof = lab.Experiment{
	Name: "linger-zero", Problem: "client-closes-first",
	Title:    "SO_LINGER with a time-out of zero",
	Question: "A reset leaves no TIME_WAIT. What else does it leave behind?",
	Setup:    "40 messages of 128 KiB to a service that reads slowly; the client closes after its last write()",
	Quantities: []proof.Quantity{
		{Name: "client_time_wait", Title: "TIME_WAIT at the client", Unit: "sockets", Better: proof.Less},
		{Name: "bytes_lost", Title: "bytes lost", Unit: "bytes", Better: proof.Less},
		{Name: "peer_resets", Title: "connections that the service saw reset", Unit: "connections"},
	},
	Arms: []lab.Arm{
		{
			Arm: base("close() as it is", proof.Exactly("bytes_lost", 0), proof.Exactly("peer_resets", 0),
				proof.Exactly("client_time_wait", 40)),
			Seconds: 3, Run: sendAndClose(false),
		},
		{
			Arm: why(turning("SO_LINGER", folklore("so-linger", "SO_LINGER {1, 0}", "setsockopt(SO_LINGER, {1, 0})", proof.Harmful,
				proof.Exactly("client_time_wait", 0), proof.Exactly("peer_resets", 40))),
				"What waits in the send buffer is thrown away, and the peer is told ECONNRESET."),
			Seconds: 3, Run: sendAndClose(true),
		},
	},
}
