package lab

import (
	"context"

	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// RecordStates records how many sockets of a service's port each node holds in a
// state, when nothing moves any more.
func (t *Trial) RecordStates(ctx context.Context, port uint16, state tcp.State, at map[string]*stage.Node) error {
	for quantity, node := range at {
		n, err := node.Count(ctx, port, state)
		if err != nil {
			return err
		}
		t.Record(quantity, float64(n))
	}
	return nil
}

// Quantities that several experiments share.
var (
	Failures = proof.Quantity{
		Name: "failed", Title: "connects that failed", Unit: "connects", Better: proof.Less,
	}
	NoPort    = proof.Quantity{Name: "EADDRNOTAVAIL", Title: "of them EADDRNOTAVAIL", Unit: "connects"}
	BindInUse = proof.Quantity{Name: "EADDRINUSE", Title: "of them EADDRINUSE", Unit: "connects"}
	// What connect() says where SO_SNDTIMEO has run out (socket(7)).
	TimedOut  = proof.Quantity{Name: "EINPROGRESS", Title: "of them without an answer in time", Unit: "connects"}
	Succeeded = proof.Quantity{Name: "opened", Title: "connects that succeeded", Unit: "connects"}
	PerSecond = proof.Quantity{Name: "per_second", Title: "connects that succeeded each second", Unit: "connects/s"}
	PortsUsed = proof.Quantity{Name: "ports", Title: "source ports in use", Unit: "ports"}

	ClientTimeWait = proof.Quantity{Name: "client_time_wait", Title: "TIME_WAIT at the client", Unit: "sockets"}
	ServerTimeWait = proof.Quantity{Name: "server_time_wait", Title: "TIME_WAIT at the service", Unit: "sockets"}
)

// RecordDialed keeps what became of connects.
func (t *Trial) RecordDialed(d stage.Dialed) {
	t.Record("failed", float64(d.NoPort+d.Failed))
	for _, q := range []proof.Quantity{NoPort, BindInUse, TimedOut} {
		t.Record(q.Name, float64(d.Errnos[q.Name]))
	}
	if d.Seconds > 0 {
		t.Record(PerSecond.Name, float64(d.Opened)/d.Seconds)
	}
	t.Record("opened", float64(d.Opened))
}
