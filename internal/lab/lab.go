// Package lab builds each problem for real, in network namespaces that it makes
// itself and that are gone with it, and fills namespaces with TIME_WAIT sockets. It
// refuses to write a setting or send a packet anywhere else.
package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/tcp"
)

// Scenario is a problem that can be built.
type Scenario struct {
	Slug diagnose.Slug
	// Title says what is built, Cure what is different in its cured state.
	Title, Cure string
	// Size is how many connections it takes, unless Options say otherwise.
	Size int

	// Cannot says why it cannot be built on this kernel, empty where it can.
	Cannot string

	build func(ctx context.Context, b *Built, o Options) error
}

// Scenarios are those that can be built, in the order of their slugs.
func Scenarios() []Scenario {
	return []Scenario{
		acceptQueueOverflow,
		addressInUse,
		bindBeforeConnect,
		clientClosesFirst,
		closeWaitLeak,
		connectionChurn,
		conntrackFull,
		finTimeout,
		finWait2PileUp,
		natPortExhaustion,
		orphanPileUp,
		portExhaustion,
		resourcePressure,
		synOnTimeWait,
		timeWaitOverflow,
		twRecycle,
		twReuse,
		vanishedConnections,
	}
}

// Options change how a scenario is built.
type Options struct {
	IPv6 bool
	// Cured builds what is left when the problem's first remedy was applied: the
	// same demand on the same network.
	Cured bool
	// Tight narrows the limit that the connections count against, so that churn which
	// is only worth knowing fills enough of it for a warning. Other problems are none
	// without their limit: it changes nothing there.
	Tight bool
	// Size is the number of connections, 0 for the scenario's own and at most
	// MaxSize.
	Size int
	// Rate is how many connections a second go on where a scenario churns, 0 for its
	// own.
	Rate float64
}

// MaxSize bounds the load of a scenario.
const MaxSize = 20_000

// Built is a scenario that stands. Its load goes on until it is closed.
type Built struct {
	Slug     diagnose.Slug
	Topology *Topology
	Expect   Expectation
	// RipeAt is when the kernel's state will have aged enough to be judged: nothing
	// can make a socket older but time.
	RipeAt time.Time

	client, server *Node
	unread         *Node // is not looked at, nil where all are
}

// Expectation is what a diagnosis of the built problem has to name.
type Expectation struct {
	// Node is the one whose namespace the finding is on.
	Node *Node
	// Role is empty where the finding is on the namespace as a whole.
	Role          tcp.Role
	Local, Remote tcp.Endpoint
	// Owner is the name of the process that causes it, empty where none does.
	Owner string
}

// Names of the scenarios' processes, as /proc/PID/comm shows them.
const (
	clientProcess = "lab-client"
	serverProcess = "lab-server"
)

const servicePort = 8080

// Build builds a scenario in fresh namespaces. Close ends it; so does the end of
// this process. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
func Build(ctx context.Context, slug diagnose.Slug, o Options) (*Built, error) {
	for _, s := range Scenarios() {
		if s.Slug == slug {
			return s.Build(ctx, o)
		}
	}
	return nil, fmt.Errorf("build %s: no such scenario", slug)
}

// Build builds the scenario, as the function Build does.
func (s Scenario) Build(ctx context.Context, o Options) (*Built, error) {
	if s.Cannot != "" {
		return nil, fmt.Errorf("build %s: %w: %s", s.Slug, errors.ErrUnsupported, s.Cannot)
	}
	if o.IPv6 && !hasIPv6() {
		return nil, fmt.Errorf("build %s: %w", s.Slug, errNoIPv6)
	}
	if o.Size < 0 || o.Size > MaxSize {
		return nil, fmt.Errorf("build %s: size %d is not between 0 and %d", s.Slug, o.Size, MaxSize)
	}
	if o.Size == 0 {
		o.Size = s.Size
	}
	t, err := NewPair("client", "server")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", s.Slug, err)
	}
	return s.buildOn(ctx, t, t.Nodes[0], t.Nodes[1], o)
}

// buildOn builds the scenario between two nodes of a topology, which is closed where
// that fails.
func (s Scenario) buildOn(ctx context.Context, t *Topology, client, server *Node, o Options) (*Built, error) {
	b := &Built{Slug: s.Slug, Topology: t, client: client, server: server}
	if err := s.build(ctx, b, o); err != nil {
		return nil, errors.Join(fmt.Errorf("build %s: %w", s.Slug, err), b.Close())
	}
	return b, nil
}

// Close ends the load and lets the namespaces go.
func (b *Built) Close() error { return b.Topology.Close() }

// parties are the two processes of a scenario and the service between them.
type parties struct {
	client, server *WorkerProcess
	service        netip.AddrPort
	rate           float64 // of connections that go on, each second
}

// start starts the two processes and the service.
func (b *Built) start(ctx context.Context, o Options, closing Closing) (parties, error) {
	p := parties{rate: cmp.Or(o.Rate, steadyRate)}
	var err error
	if p.server, err = b.server.Start(ctx, serverProcess); err != nil {
		return p, err
	}
	p.service = netip.AddrPortFrom(b.server.Addr(o.IPv6), servicePort)
	if _, err := p.server.Serve(ctx, ServeSpec{Endpoints: []netip.AddrPort{p.service}, Close: closing}); err != nil {
		return p, err
	}
	p.client, err = b.client.Start(ctx, clientProcess)
	return p, err
}

// expectConnector is what names the client's end of the service.
func (b *Built) expectConnector(o Options, p parties) Expectation {
	return Expectation{
		Node:   b.client,
		Role:   tcp.Connector,
		Local:  tcp.Endpoint{Addr: b.client.Addr(o.IPv6)},
		Remote: tcp.Endpoint{Addr: p.service.Addr(), Port: p.service.Port()},
		Owner:  clientProcess,
	}
}

// expectAcceptor is what names the service's end.
func (b *Built) expectAcceptor(p parties) Expectation {
	return Expectation{
		Node:  b.server,
		Role:  tcp.Acceptor,
		Local: tcp.Endpoint{Addr: p.service.Addr(), Port: p.service.Port()},
		Owner: serverProcess,
	}
}

const (
	// steadyRate is how many connections a second go on while a scenario stands.
	steadyRate  = 50
	steadyBatch = 5
	// quietAfterBurst is how long a burst takes to leave the last few seconds, by
	// which the rate of closes now is told.
	quietAfterBurst = 12 * time.Second
)

// tightFactor is how many times the connections a tight limit is: with what goes on
// after them, between three and six tenths of it are filled.
const tightFactor = 3

// burst makes connections as fast as it can and waits for their end.
func burst(ctx context.Context, p parties, dial DialSpec) error {
	done, err := p.client.Churn(ctx, dial)
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return fmt.Errorf("%d of %d connections failed: %s", done.Failed, dial.Count, done.FirstFailure)
	}
	return awaitServed(ctx, p.server, int64(done.Opened))
}

// burstThenSteady is a minute of churn without the wait of a minute: most of it at
// once, the rest as it goes on.
func burstThenSteady(ctx context.Context, p parties, dial DialSpec) error {
	if err := burst(ctx, p, dial); err != nil {
		return err
	}
	return steady(ctx, p, dial)
}

func steady(ctx context.Context, p parties, dial DialSpec) error {
	dial.Count, dial.Rate, dial.Batch = 0, p.rate, steadyBatch
	return p.client.Begin(ctx, dial)
}

// pool is the cure of churn: a few connections that stay, each used again and
// again.
func pool(ctx context.Context, p parties, size int) error {
	const connections, rounds = 20, 10
	done, err := p.client.Hold(ctx, DialSpec{To: []netip.AddrPort{p.service}, Count: min(connections, size)})
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return fmt.Errorf("%d connections failed: %s", done.Failed, done.FirstFailure)
	}
	for range rounds {
		if err := p.client.Talk(ctx); err != nil {
			return err
		}
	}
	return nil
}
