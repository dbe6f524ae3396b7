package stage

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"linger/internal/setting"
)

// FillSpec says with how many TIME_WAIT sockets to fill a namespace.
type FillSpec struct {
	Sockets int
	// Groups is the number of destinations (address and port) over which they are
	// spread; 0 is as many as keep the search for a free source port short.
	Groups int
	// ServerHolds leaves the sockets with the service and not with its clients.
	ServerHolds bool
}

const (
	// fillWorkers each dial on one thread and serve on another.
	fillWorkers = 2
	// fillPorts is the number of services of each worker.
	fillPorts = 4
	// fillPerGroup keeps the source ports of a destination mostly free, which is
	// what connect() is fast with: it looks for one from a random start
	// (__inet_hash_connect of net/ipv4/inet_hashtables.c).
	fillPerGroup = 8000
	// fillFirstPort is below the default ip_local_port_range, so that no client
	// takes a service's port.
	fillFirstPort = 7000
	fillLimit     = 2_000_000
)

// Fill leaves TIME_WAIT sockets in a node that stands alone (NewLoopback): all
// between addresses of 127.0.0.0/8. The node's tcp_max_tw_buckets is raised for
// them. It returns when the last one is there; the first ones go 60 s after they
// came.
func Fill(ctx context.Context, n *Node, spec FillSpec) (Dialed, error) {
	if spec.Sockets <= 0 || spec.Sockets > fillLimit {
		return Dialed{}, fmt.Errorf("fill: %d sockets are not between 1 and %d", spec.Sockets, fillLimit)
	}
	if spec.Groups == 0 {
		spec.Groups = spec.Sockets/fillPerGroup + 1
	}
	if err := n.Set(setting.MaxTWBuckets, strconv.Itoa(2*spec.Sockets+1000)); err != nil {
		return Dialed{}, fmt.Errorf("fill: %w", err)
	}
	start := time.Now()
	done := make([]Dialed, fillWorkers)
	errs := make([]error, fillWorkers)
	var group sync.WaitGroup
	for i := range fillWorkers {
		w, err := n.Start(ctx, fmt.Sprintf("lab-fill-%d", i))
		if err != nil {
			errs[i] = err
			break
		}
		group.Go(func() { done[i], errs[i] = fillShare(ctx, w, spec, i) })
	}
	group.Wait()
	var sum Dialed
	for _, d := range done {
		sum = sum.Plus(d)
	}
	sum.Seconds = time.Since(start).Seconds()
	if err := errors.Join(errs...); err != nil {
		return sum, fmt.Errorf("fill: %w", err)
	}
	return sum, nil
}

// fillShare has one worker make its share of the sockets.
func fillShare(ctx context.Context, w *Worker, spec FillSpec, share int) (Dialed, error) {
	// Both ends of a connection on one CPU take a quarter less of its time, and the
	// workers have one each.
	if err := w.Pin(ctx, share); err != nil {
		return Dialed{}, err
	}
	serve := ServeSpec{Close: CloseSecond}
	if spec.ServerHolds {
		serve.Close = CloseFirst
	}
	for i := range fillPorts {
		port := uint16(fillFirstPort + share*fillPorts + i)
		serve.Endpoints = append(serve.Endpoints, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	if _, err := w.Serve(ctx, serve); err != nil {
		return Dialed{}, err
	}
	dial := DialSpec{
		Count:      portion(spec.Sockets, share),
		PeerCloses: spec.ServerHolds,
	}
	for i := range max(portion(spec.Groups, share), 1) {
		host := i / fillPorts
		addr := netip.AddrFrom4([4]byte{127, byte(1 + host>>16), byte(host >> 8), byte(host)})
		dial.To = append(dial.To, netip.AddrPortFrom(addr, serve.Endpoints[i%fillPorts].Port()))
	}
	dialed, err := w.Churn(ctx, dial)
	if err != nil {
		return dialed, err
	}
	return dialed, w.AwaitServed(ctx, int64(dialed.Opened))
}

// portion is one worker's part of n.
func portion(n, share int) int { return n*(share+1)/fillWorkers - n*share/fillWorkers }
