// Package lab runs experiments: it measures what remedies and folklore do to a problem,
// each arm in namespaces of its own that are gone with it, and judges the numbers. What is
// measured is said by its cases; what they are built from is its stage.
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
	"linger/internal/lab/stage"
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
	Run Measure
}

// Measure runs an arm once.
type Measure func(ctx context.Context, t *Trial) error

// Load says what may run beside a run.
type Load int

// Works: as many at a time as there are CPUs. Waits: it mostly sleeps, and all such
// run at once. Alone: it measures time, and nothing that works runs beside it.
const (
	Works Load = iota
	Waits
	Alone
)

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

// Value is what was recorded of a quantity, 0 if nothing was.
func (t *Trial) Value(quantity string) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.run.Values[quantity]
}

// RecordNamed keeps that a diagnosis has named something.
func (t *Trial) RecordNamed(named proof.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run.Named = append(t.run.Named, named)
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

// Wiring is what the trial's experiment on the wire is built with.
func (t *Trial) Wiring() stage.Wiring {
	if t.captures == "" {
		return stage.Wiring{IPv6: t.ipv6}
	}
	return stage.Wiring{IPv6: t.ipv6, Tap: func(left, right string) (io.Writer, error) {
		wire := strings.ReplaceAll(fmt.Sprintf("%s-%s.pcap", left, right), " ", "-")
		file, err := os.Create(t.captures + wire)
		if err != nil {
			return nil, err
		}
		t.Defer(file.Close)
		return file, nil
	}}
}

// OverIPv6 has a run use IPv6 and nothing else.
func OverIPv6(run Measure) Measure {
	return func(ctx context.Context, t *Trial) error {
		if !stage.HasIPv6() {
			return stage.ErrNoIPv6
		}
		t.ipv6 = true
		return run(ctx, t)
	}
}

// Addr is a node's address of the family that the run uses.
func (t *Trial) Addr(n *stage.Node) netip.Addr { return n.Addr(t.ipv6) }

// Service is a port of a node.
func (t *Trial) Service(n *stage.Node, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(t.Addr(n), port)
}

// Pair makes two joined namespaces that end with the trial.
func (t *Trial) Pair(left, right string) (*stage.Node, *stage.Node, error) {
	topology, err := stage.NewPair(left, right)
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
