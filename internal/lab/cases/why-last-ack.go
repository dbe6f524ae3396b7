package cases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/lab/wire"
	"linger/internal/proof"
	"linger/internal/setting"
)

var whyLastAck = Case{Experiments: []lab.Experiment{whyLastAckProof}}

// lostAck is what happened when the ACK of the second FIN was lost.
type lostAck struct {
	// fins are those that the peer sent, Resets those that it got.
	fins, resets int
	// told is what the peer's program was told at the end: nil is an orderly end.
	told   error
	ladder wire.Ladder
}

// lastAckWithout says how a host is kept from holding TIME_WAIT.
type lastAckWithout int

const (
	// withTimeWait leaves it alone.
	withTimeWait lastAckWithout = iota
	// withoutBuckets sets tcp_max_tw_buckets to 0.
	withoutBuckets
	// withoutByDestroy ends the time-wait socket by SOCK_DESTROY, as ss -K does: IPv4 alone.
	withoutByDestroy
	// withoutByReset closes by a reset, so that no last ACK is needed at all.
	withoutByReset
)

// measureLastAck closes a connection from the client's side, and loses the client's
// last ACK.
func measureLastAck(ctx context.Context, on stage.Wiring, without lastAckWithout) (result lostAck, err error) {
	t, w, err := stage.NewWired(on, "client", "server")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	client, server := t.Nodes[0], t.Nodes[1]
	if without == withoutBuckets {
		if err := client.Set(setting.MaxTWBuckets, "0"); err != nil {
			return result, err
		}
	}
	near, far, err := connectOverWire(ctx, client, server, on.IPv6)
	if err != nil {
		return result, err
	}
	defer near.Close()
	defer far.Close()

	lastAck := wire.Match{From: wire.Left, Sequence: wire.AcksFIN, Nth: 1}
	w.SetRules(wire.Rule{Match: lastAck, Action: wire.Drop, Note: "the last ACK, lost"})
	if without == withoutByReset {
		if err := near.Reset(); err != nil {
			return result, err
		}
		_, result.told = far.Read(ctx, 1)
	} else if result.told, err = loseLastAck(ctx, t, w, near, far, without == withoutByDestroy); err != nil {
		return result, err
	}
	if errors.Is(result.told, os.ErrDeadlineExceeded) {
		return result, fmt.Errorf("the peer's connection does not end: %w", result.told)
	}
	result.fins = w.Count(0, wire.Match{From: wire.Right, Has: wire.FIN})
	result.resets = w.Count(0, wire.Match{From: wire.Left, Has: wire.RST})
	result.ladder = w.Ladder(0, wire.Match{})
	return result, nil
}

func loseLastAck(ctx context.Context, t *stage.Topology, w *wire.Wire, near, far *stage.Socket, destroy bool) (told, err error) {
	// A half close: with no time-wait socket allowed, an orphan in FIN_WAIT2 would be
	// gone as well, before the peer's FIN.
	if err := near.Finish(); err != nil {
		return nil, err
	}
	if err := far.ReadEnd(ctx); err != nil {
		return nil, err
	}
	if err := far.Finish(); err != nil {
		return nil, err
	}
	if _, err := w.Await(ctx, 0, wire.Match{From: wire.Left, Sequence: wire.AcksFIN, Nth: 1}); err != nil {
		return nil, err
	}
	if destroy {
		if err := t.Nodes[0].DestroyTimeWait(wirePorts(t.Nodes[0], t.Nodes[1], false)); err != nil {
			return nil, err
		}
	}
	return far.Gone(ctx), nil
}

// wirePorts are the ends of the one connection of an experiment on the wire.
func wirePorts(left, right *stage.Node, ipv6 bool) (from, to netip.AddrPort) {
	return netip.AddrPortFrom(left.Addr(ipv6), 40000), netip.AddrPortFrom(right.Addr(ipv6), stage.ServicePort)
}

// connectOverWire opens the connection.
func connectOverWire(ctx context.Context, client, server *stage.Node, ipv6 bool) (near, far *stage.Socket, err error) {
	from, to := wirePorts(client, server, ipv6)
	l, err := server.Listener(to)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if near, err = client.Socket(from); err != nil {
		return nil, nil, err
	}
	if err := near.Connect(ctx, to); err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	if far, err = l.Accept(ctx); err != nil {
		near.Close()
		return nil, nil, err
	}
	return near, far, nil
}

func lastAckLost(title string, without lastAckWithout) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		r, err := measureLastAck(ctx, t.Wiring(), without)
		if err != nil {
			return err
		}
		t.Record("failed_end", oneIf(r.told != nil))
		t.Record("resets", float64(r.resets))
		t.Record("fins", float64(r.fins))
		t.Draw(ladderOf(title, r.ladder))
		return nil
	}
}

// aReset is one for each FIN that arrives before the peer has heard of it: where the
// machine is slow the peer has sent another meanwhile.
func aReset() proof.Bound { return proof.Between("resets", 1, 5) }

var whyLastAckProof = lab.Experiment{
	Name:     "why-last-ack",
	Title:    "The first reason for TIME_WAIT: the last ACK may get lost",
	Question: "A connection ends in order, and the last ACK does not arrive. What is the peer told?",
	Setup:    "two hosts on a wire that loses the first segment that acknowledges the peer's FIN",
	Load:     lab.Waits,
	Wired:    true,
	Quantities: []proof.Quantity{
		{Name: "failed_end", Title: "orderly ends that the peer's program is told have failed", Unit: "connections",
			Better: proof.Less},
		{Name: "resets", Title: "resets that the peer got", Unit: "segments"},
		{Name: "fins", Title: "FINs that the peer sent", Unit: "segments"},
	},
	Arms: []lab.Arm{
		{
			Arm:     base("TIME_WAIT answers", proof.Exactly("failed_end", 0), proof.Exactly("resets", 0)),
			Seconds: 1, Run: lastAckLost("The last ACK is lost, and TIME_WAIT answers", withTimeWait),
		},
		{
			Arm: observe("ipv6", "The same over IPv6", "IPv6 addresses", proof.NoEffect, proof.Exactly("failed_end", 0),
				proof.Exactly("resets", 0)),
			Seconds: 1, Run: lab.OverIPv6(lastAckLost("The last ACK is lost over IPv6, and TIME_WAIT answers", withTimeWait)),
		},
		{
			Arm:     turning("ss -K", folklore("kill", "TIME_WAIT is taken away", "ss -K (SOCK_DESTROY)", proof.Harmful, aReset())),
			Seconds: 1, Run: lastAckLost("The last ACK is lost, and TIME_WAIT was taken away", withoutByDestroy),
		},
		{
			Arm: turning("tcp_max_tw_buckets", folklore("max-tw-buckets", "No TIME_WAIT is made", "net.ipv4.tcp_max_tw_buckets=0", proof.Harmful,
				aReset())),
			Seconds: 1, Run: lastAckLost("The last ACK is lost, and no TIME_WAIT was made", withoutBuckets),
		},
		{
			Arm: turning("SO_LINGER", folklore("linger-zero", "The connection ends by a reset", "SO_LINGER with a time-out of zero",
				proof.Harmful, proof.Exactly("resets", 1))),
			Seconds: 1, Run: lastAckLost("The connection ends by a reset", withoutByReset),
		},
	},
}
