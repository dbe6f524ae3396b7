package lab

import (
	"context"
	"net/netip"

	"linger/internal/lab/stage"
	"linger/internal/setting"
)

// Scene is a client and a service on two joined nodes, as most experiments need.
type Scene struct {
	ClientNode, ServerNode *stage.Node
	stage.Parties
}

// Scene makes the two nodes, sets what an arm sets there, and starts the two
// processes; the service listens as serve says.
func (t *Trial) Scene(ctx context.Context, serve stage.ServeSpec, set ...Sysctl) (s Scene, err error) {
	if s.ClientNode, s.ServerNode, err = t.Pair("client", "server"); err != nil {
		return s, err
	}
	// TIME_WAIT ignores late resets (RFC 1337), in every arm alike: they end a few of a
	// thousand at random, and it is those that hide what a variant does.
	const assassins = setting.RFC1337
	for _, each := range append([]Sysctl{AtClient(assassins, "1"), AtServer(assassins, "1")}, set...) {
		if err := each.Set(s.ClientNode, s.ServerNode); err != nil {
			return s, err
		}
	}
	if s.Server, err = s.ServerNode.Start(ctx, stage.ServerProcess); err != nil {
		return s, err
	}
	if len(serve.Endpoints) == 0 {
		serve.Endpoints = []netip.AddrPort{t.Service(s.ServerNode, stage.ServicePort)}
	}
	bound, err := s.Server.Serve(ctx, serve)
	if err != nil {
		return s, err
	}
	s.Service = bound[0]
	s.Client, err = s.ClientNode.Start(ctx, stage.ClientProcess)
	return s, err
}

// Sysctl is a value of a key at one of two nodes.
type Sysctl struct {
	atServer   bool
	key, value string
}

// AtClient is a value at the client's node, AtServer at the service's.
func AtClient(key, value string) Sysctl { return Sysctl{false, key, value} }
func AtServer(key, value string) Sysctl { return Sysctl{true, key, value} }

// Set sets it.
func (s Sysctl) Set(client, server *stage.Node) error {
	if s.atServer {
		return server.Set(s.key, s.value)
	}
	return client.Set(s.key, s.value)
}
