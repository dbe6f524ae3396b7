// Package sockets makes a table of the groups of a snapshot: chosen, gathered by what
// they share, and in order. It computes and reads nothing.
package sockets

import (
	"slices"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// By is what the rows of a table gather.
type By string

// The ways to gather. ByGroup is none: a row for each group.
const (
	ByGroup       By = "group"
	ByDestination By = "destination"
	ByService     By = "service"
	ByProcess     By = "process"
	ByNamespace   By = "namespace"
	ByState       By = "state"
)

// Order is what the rows of a table are sorted by, in falling order.
type Order string

// The orders. BySockets counts the chosen states.
const (
	BySockets  Order = "sockets"
	ByTimeWait Order = "time-wait"
	ByBudget   Order = "budget"
	ByCloses   Order = "closes"
)

// Query says what a table is of. What is empty chooses all.
type Query struct {
	States        []tcp.State
	Local, Remote []tcp.Match
	// Ports are those that the connections of a group share: a connector's destination
	// port, an acceptor's service port.
	Ports []uint16
	Roles []tcp.Role
	By    By
	Order Order
	// Top is how many rows to tell, 0 for all.
	Top int
}

// choice is what a query makes of a group.
type choice int

const (
	refused choice = iota
	chosen
	// chosenByClient: some of an acceptor's clients are chosen by --remote, and the group
	// counts them all.
	chosenByClient
	// undecided: none of the clients that were kept is, and there are more.
	undecided
)

// choose decides over a group. A group's sockets share its endpoints, but for an
// acceptor's clients, which are counted one by one, and for source ports.
func (q *Query) choose(g *snapshot.Group) choice {
	port := g.Remote.Port
	if g.Role == tcp.Acceptor {
		port = g.Local.Port
	}
	switch {
	case len(q.Roles) > 0 && !slices.Contains(q.Roles, g.Role),
		len(q.Ports) > 0 && !slices.Contains(q.Ports, port),
		!tcp.AnyChooses(q.Local, g.Local),
		q.count(g.States).Total() == 0:
		return refused
	case len(q.Remote) == 0:
		return chosen
	case g.Role != tcp.Acceptor:
		if tcp.AnyChooses(q.Remote, g.Remote) {
			return chosen
		}
		return refused
	}
	for _, c := range g.Clients {
		if tcp.AnyChooses(q.Remote, tcp.Endpoint{Addr: c.Addr}) {
			return chosenByClient
		}
	}
	if !g.ClientsComplete {
		return undecided
	}
	return refused
}

// count keeps the chosen states.
func (q *Query) count(states tcp.States) tcp.States {
	if len(q.States) == 0 {
		return states
	}
	var kept tcp.States
	for _, s := range q.States {
		kept[s] = states[s]
	}
	return kept
}
