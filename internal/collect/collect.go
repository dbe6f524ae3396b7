// Package collect asks the kernel rooms about every network namespace of a host
// and returns one snapshot, with what could not be read named as gaps. It judges
// nothing and changes nothing.
package collect

import (
	"context"
	"errors"
	"time"

	"linger/internal/snapshot"
)

// Options say what to read.
type Options struct {
	// Netns names the namespaces to read: names under /run/netns, process ids,
	// paths, or all, which is also what no name means.
	Netns []string
	// Window is the time between the two readings of the counters. Zero reads them
	// once, so that no rise is known.
	Window time.Duration
	// Progress is told what is done; it is called by one goroutine at a time.
	Progress func(done, total int, what string)
}

// ErrNoNamespace means that no chosen namespace could be read.
var ErrNoNamespace = errors.New("no chosen network namespace could be read")

// ErrUnknownNamespace means that Options.Netns names what does not exist.
var ErrUnknownNamespace = errors.New("no such network namespace")

// Collect reads the host once. When ctx is cancelled it returns what it has,
// with a gap that says so.
func Collect(ctx context.Context, o Options) (*snapshot.Snapshot, error) {
	return nil, errors.ErrUnsupported
}
