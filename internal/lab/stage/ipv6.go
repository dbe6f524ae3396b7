package stage

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// HasIPv6 tells whether this kernel speaks it: without the module, or with ipv6.disable=1,
// it has no such sockets.
var HasIPv6 = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
})

var ErrNoIPv6 = fmt.Errorf("%w: this kernel has no IPv6", errors.ErrUnsupported)

// Possible are those of the addresses that this kernel can have.
func Possible(addrs ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is6() && !HasIPv6() })
}
