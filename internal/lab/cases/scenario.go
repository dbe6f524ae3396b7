package cases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab/stage"
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

	// Make makes the problem on the two nodes, and says what is to be expected of it.
	Make func(ctx context.Context, b *Built, o Options) error
	// Draw is what a seed may draw of it.
	Draw Draw
	// Consequences are the other problems that a diagnosis may name beside it, since they
	// follow from it.
	Consequences []diagnose.Slug
}

// Draw is what a seed may draw of a scenario, and what can be healthy beside it.
type Draw struct {
	// Sizes are the fewest and the most connections: from where its rule calls it a problem
	// to what is built in a moment. Without them it has its own.
	Sizes [2]int
	// Rate draws how many connections a second go on; nil leaves that to the scenario.
	Rate func(r *rand.Rand, size int) float64
	// OneHost: its client and its service may be on one host. Others need a link that is
	// cut, or addresses that are translated.
	OneHost bool
	// Fleeting: its sign ends soon, so that it is looked for as soon as it can be seen.
	Fleeting bool
	// Tightens: a tight limit makes it a warning, and without one it is true and harms
	// nothing.
	Tightens bool

	// Ports are the source ports of the client's host that others may count on; nil are
	// those of the default range.
	Ports func(o Options) int
	// Sharable: another client of the very service may be healthy; where it Exhausts the
	// client's ports to that service, on another host.
	Sharable, Exhausts bool
	// Crowds tells whether it limits the time-wait sockets of the service's host, so that no
	// churn there is healthy; nil is no.
	Crowds func(o Options) bool
	// Gone: the service's host vanishes, so that nobody is healthy with it.
	Gone bool
}

// DefaultPorts are those of ip_local_port_range at its default.
const DefaultPorts = 28_232

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
	// Rate is how many connections a second go on where a scenario churns, 0 for 50.
	Rate float64
}

// maxSize bounds the load of a scenario.
const maxSize = 20_000

// steadyRate is how many connections a second go on while a scenario stands.
const steadyRate = 50

// Built is a scenario that stands. Its load goes on until it is closed.
type Built struct {
	Topology *stage.Topology
	// ClientNode and ServerNode are those of its two ends; they may be one.
	ClientNode, ServerNode *stage.Node
	Expect                 Expectation
	// RipeAt is when the kernel's state will have aged enough to be judged: nothing
	// can make a socket older but time.
	RipeAt time.Time
}

// Expectation is what a diagnosis of the built problem has to name.
type Expectation struct {
	// Node is the one whose namespace the finding is on.
	Node *stage.Node
	// Role is empty where the finding is on the namespace as a whole.
	Role          tcp.Role
	Local, Remote tcp.Endpoint
	// Owner is the name of the process that causes it, empty where none does.
	Owner string
}

// Build builds the scenario in fresh namespaces. Close ends it; so does the end of
// this process. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
func (s Scenario) Build(ctx context.Context, o Options) (*Built, error) {
	if s.Cannot != "" {
		return nil, fmt.Errorf("build %s: %w: %s", s.Slug, errors.ErrUnsupported, s.Cannot)
	}
	if o.IPv6 && !stage.HasIPv6() {
		return nil, fmt.Errorf("build %s: %w", s.Slug, stage.ErrNoIPv6)
	}
	if o.Size < 0 || o.Size > maxSize {
		return nil, fmt.Errorf("build %s: size %d is not between 0 and %d", s.Slug, o.Size, maxSize)
	}
	t, err := stage.NewPair("client", "server")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", s.Slug, err)
	}
	return s.BuildOn(ctx, t, t.Nodes[0], t.Nodes[1], o)
}

// BuildOn builds the scenario between two nodes of a topology, which is closed where
// that fails.
func (s Scenario) BuildOn(ctx context.Context, t *stage.Topology, client, server *stage.Node, o Options) (*Built, error) {
	o.Size, o.Rate = cmp.Or(o.Size, s.Size), cmp.Or(o.Rate, steadyRate)
	b := &Built{Topology: t, ClientNode: client, ServerNode: server}
	if err := s.Make(ctx, b, o); err != nil {
		return nil, errors.Join(fmt.Errorf("build %s: %w", s.Slug, err), b.Close())
	}
	return b, nil
}

// Close ends the load and lets the namespaces go.
func (b *Built) Close() error { return b.Topology.Close() }

// start starts the two processes and the service.
func (b *Built) start(ctx context.Context, o Options, closing stage.Closing) (p stage.Parties, err error) {
	if p.Server, err = b.ServerNode.Start(ctx, stage.ServerProcess); err != nil {
		return p, err
	}
	p.Service = netip.AddrPortFrom(b.ServerNode.Addr(o.IPv6), stage.ServicePort)
	if _, err := p.Server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{p.Service}, Close: closing}); err != nil {
		return p, err
	}
	p.Client, err = b.ClientNode.Start(ctx, stage.ClientProcess)
	return p, err
}

// expectConnector is what names the client's end of the service.
func (b *Built) expectConnector(o Options, p stage.Parties) Expectation {
	return Expectation{
		Node:   b.ClientNode,
		Role:   tcp.Connector,
		Local:  tcp.Endpoint{Addr: b.ClientNode.Addr(o.IPv6)},
		Remote: tcp.Endpoint{Addr: p.Service.Addr(), Port: p.Service.Port()},
		Owner:  stage.ClientProcess,
	}
}

// expectAcceptor is what names the service's end.
func (b *Built) expectAcceptor(p stage.Parties) Expectation {
	return Expectation{
		Node:  b.ServerNode,
		Role:  tcp.Acceptor,
		Local: tcp.Endpoint{Addr: p.Service.Addr(), Port: p.Service.Port()},
		Owner: stage.ServerProcess,
	}
}

// QuietAfterBurst is how long a burst takes to leave the last few seconds, by
// which the rate of closes now is told.
const QuietAfterBurst = 12 * time.Second

// tightFactor is how many times the connections a tight limit is: with what goes on
// after them, between three and six tenths of it are filled.
const tightFactor = 3

// minutely draws about what the connections of the last minute were.
func minutely(r *rand.Rand, size int) float64 { return float64(size) / 60 * (0.7 + 0.6*r.Float64()) }

// anyRate draws a rate between 10 and 100.
func anyRate(r *rand.Rand, _ int) float64 { return 10 + 90*r.Float64() }
