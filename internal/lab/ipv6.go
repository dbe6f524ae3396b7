package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// hasIPv6 tells whether this kernel speaks it: without the module, or with ipv6.disable=1,
// it has no such sockets.
var hasIPv6 = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
})

var errNoIPv6 = fmt.Errorf("%w: this kernel has no IPv6", errors.ErrUnsupported)

// possible are those of the addresses that this kernel can have.
func possible(addrs ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is6() && !hasIPv6() })
}

// overIPv6 has a run use IPv6 and nothing else.
func overIPv6(run func(context.Context, *Trial) error) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		if !hasIPv6() {
			return errNoIPv6
		}
		t.ipv6 = true
		return run(ctx, t)
	}
}
