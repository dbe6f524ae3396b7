package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"

	"linger/internal/diagnose"
	"linger/internal/proof"
)

// Experiment measures a problem: its base line, and what remedies and folklore do to
// it, each in namespaces of its own.
type Experiment struct {
	// Name is the slug of the problem, or a name of its own where it has none.
	Name string
	// Problem is the one that it is about; the same as Name for most.
	Problem diagnose.Slug
	Title   string
	// Question is what the numbers answer, Setup what is the same in every arm.
	Question, Setup string
	// Quantities are what each run records, the goal first.
	Quantities []proof.Quantity
	// Arms are the base line and then its variants.
	Arms []Arm
	Load Load
	// Wired experiments are on a wire, whose packets can be kept.
	Wired bool
	// Cannot says why it cannot be built on this kernel, empty where it can.
	Cannot string
}

// Arm is one way to run an experiment.
type Arm struct {
	proof.Arm
	// Seconds is about how long one run takes.
	Seconds float64
	// Load is that of this arm, where it is not the experiment's.
	Load Load
	// Long arms are left out where it has to be quick.
	Long bool
	// Run builds, measures, and records in the trial. Namespaces, processes and files
	// that it makes with the trial end with it.
	Run func(ctx context.Context, t *Trial) error
}

// Load says what may run beside a run.
type Load int

// Works: as many at a time as there are CPUs. Waits: it mostly sleeps, and all such
// run at once. Alone: it measures time, and nothing that works runs beside it.
const (
	Works Load = iota
	Waits
	Alone
)

// Experiments are all that can be run, those of problems in the order of their
// slugs, then those that have no problem of their own.
func Experiments() []Experiment {
	return []Experiment{
		acceptQueueOverflowProof,
		addressInUseProof,
		bindBeforeConnectProof,
		clientClosesFirstProof,
		lingerZeroProof,
		closeWaitLeakProof,
		connectionChurnProof,
		conntrackFullProof,
		finTimeoutProof,
		finWait2PileUpProof,
		natPortExhaustionProof,
		orphanPileUpProof,
		portExhaustionProof,
		connectCostProof,
		resourcePressureProof,
		timeWaitMemoryProof,
		memoryLimitProof,
		synOnTimeWaitProof,
		timeWaitOverflowProof,
		twRecycleProof,
		twReuseProof,
		vanishedConnectionsProof,
		peerResetsProof,
		whyLastAckProof,
		whyOldSegmentProof,
		nginxProxyProof,
		haproxyProxyProof,
	}
}

// Trial is one run of one arm.
type Trial struct {
	ipv6 bool
	// captures is where files of what wires carry go, up to the name of the wire; empty
	// for nowhere.
	captures string

	mu      sync.Mutex
	run     proof.Run
	closers []func() error
}

// Record keeps the value of a quantity.
func (t *Trial) Record(quantity string, value float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.run.Values == nil {
		t.run.Values = map[string]float64{}
	}
	t.run.Values[quantity] = value
}

// Plot keeps a curve.
func (t *Trial) Plot(s proof.Series) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run.Series = append(t.run.Series, s)
}

// Draw keeps a ladder.
func (t *Trial) Draw(l proof.Ladder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run.Ladders = append(t.run.Ladders, l)
}

// Defer has something undone at the end of the trial, the last first.
func (t *Trial) Defer(undo func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closers = append(t.closers, undo)
}

// network is what the trial's experiment on the wire is built on.
func (t *Trial) network() network {
	if t.captures == "" {
		return network{ipv6: t.ipv6}
	}
	return network{t.ipv6, func(left, right string) (io.Writer, error) {
		wire := strings.ReplaceAll(fmt.Sprintf("%s-%s.pcap", left, right), " ", "-")
		file, err := os.Create(t.captures + wire)
		if err != nil {
			return nil, err
		}
		t.Defer(file.Close)
		return file, nil
	}}
}

// addr is a node's address of the family that the run uses.
func (t *Trial) addr(n *Node) netip.Addr { return n.Addr(t.ipv6) }

// service is a port of a node.
func (t *Trial) service(n *Node, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(t.addr(n), port)
}

// Pair makes two joined namespaces that end with the trial.
func (t *Trial) Pair(left, right string) (*Node, *Node, error) {
	topology, err := NewPair(left, right)
	if err != nil {
		return nil, nil, err
	}
	t.Defer(topology.Close)
	return topology.Nodes[0], topology.Nodes[1], nil
}

// close undoes what the trial made.
func (t *Trial) close() error {
	t.mu.Lock()
	closers := t.closers
	t.closers = nil
	t.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

// stage is a client and a service on two joined nodes, as most experiments need.
type stage struct {
	client, server *Node
	parties
}

// stage makes the two nodes, sets what an arm sets there, and starts the two
// processes; the service listens as serve says.
func (t *Trial) stage(ctx context.Context, serve ServeSpec, set ...setting) (stage, error) {
	var s stage
	var err error
	if s.client, s.server, err = t.Pair("client", "server"); err != nil {
		return s, err
	}
	for _, each := range append(noAssassins, set...) {
		node := s.client
		if each.at == atServer {
			node = s.server
		}
		if err := node.Set(each.key, each.value); err != nil {
			return s, err
		}
	}
	if s.parties.server, err = s.server.Start(ctx, serverProcess); err != nil {
		return s, err
	}
	if len(serve.Endpoints) == 0 {
		serve.Endpoints = []netip.AddrPort{t.service(s.server, servicePort)}
	}
	bound, err := s.parties.server.Serve(ctx, serve)
	if err != nil {
		return s, err
	}
	s.service = bound[0]
	s.parties.client, err = s.client.Start(ctx, clientProcess)
	return s, err
}

// noAssassins has TIME_WAIT ignore late resets (RFC 1337), in every arm alike: they end
// a few of a thousand at random, and it is those that hide what a variant does.
var noAssassins = []setting{{atClient, "net.ipv4.tcp_rfc1337", "1"}, {atServer, "net.ipv4.tcp_rfc1337", "1"}}

// setting is a sysctl of one of the two nodes.
type setting struct {
	at         side
	key, value string
}

type side int

const (
	atClient side = iota
	atServer
)

func (s setting) String() string { return fmt.Sprintf("sysctl -w %s=%q", s.key, s.value) }
