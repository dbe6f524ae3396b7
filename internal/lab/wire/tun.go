package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
)

// End is one end of a wire: a TUN device in a namespace.
type End struct {
	// Name is that of the host, for the ladder.
	Name  string
	Netns *netns.Handle
	// Link is the name of the device to be made, at most 15 bytes.
	Link  string
	Addrs []netip.Prefix
}

const tunDevice = "/dev/net/tun"

// queueLength is how many packets the kernel keeps for a reader (the device's
// txqueuelen); what comes beyond is lost. It holds the largest window of TCP's own
// choice (tcp_rmem, 6 MB) twice over.
const queueLength = 10_000

// plug makes the device and gives it its addresses.
func (e End) plug(mtu int) (*os.File, error) {
	var tun *os.File
	err := e.Netns.Do(func() (err error) {
		if tun, err = openTUN(tunDevice, e.Link); err != nil {
			return err
		}
		link, err := netlink.LinkByName(e.Link)
		if err != nil {
			return fmt.Errorf("link %s: %w", e.Link, err)
		}
		for _, step := range []func() error{
			func() error { return netlink.LinkSetTxQLen(link, queueLength) },
			func() error { return netlink.LinkSetMTU(link, mtu) },
			func() error { return netlink.LinkSetUp(link) },
		} {
			if err := step(); err != nil {
				return fmt.Errorf("link %s: %w", e.Link, err)
			}
		}
		for _, a := range e.Addrs {
			if err := addAddress(link, a); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
		}
		for _, a := range e.Addrs {
			if err := awaitLocal(a.Addr()); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
		}
		return nil
	})
	if err != nil && tun != nil {
		err = errors.Join(err, tun.Close())
	}
	return tun, err
}

func addAddress(link netlink.Link, a netip.Prefix) error {
	flags := 0
	if a.Addr().Is6() {
		// Nobody else can have the address: no duplicate address detection.
		flags = unix.IFA_F_NODAD
	}
	return netlink.AddrAdd(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())},
		Flags: flags,
	})
}

// localPatience is how long the kernel has to take an address for its own.
const localPatience = 10 * time.Second

// awaitLocal waits until packets for an address are taken in: of IPv6 the kernel makes
// the route later, in a work queue (addrconf_dad_work), and what comes before is lost.
func awaitLocal(addr netip.Addr) error {
	for deadline := time.Now().Add(localPatience); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("not usable after %s", localPatience), err)
		}
	}
}

// openTUN makes a TUN device in the namespace of the calling thread. It is gone when
// the file is closed.
func openTUN(path, name string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w: this host has no %s, which the wire is made of: modprobe tun, or give it to the container",
			errors.ErrUnsupported, path)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make device %s: %w", name, err)
	}
	// Only now: before TUNSETIFF the file cannot be polled.
	return os.NewFile(uintptr(fd), path), nil
}

// overflowed is how many packets the kernel threw away because the wire did not read
// them in time.
func (e End) overflowed() (n uint64, err error) {
	err = e.Netns.Do(func() error {
		link, err := netlink.LinkByName(e.Link)
		if err != nil {
			return fmt.Errorf("link %s: %w", e.Link, err)
		}
		if s := link.Attrs().Statistics; s != nil {
			n = s.TxDropped
		}
		return nil
	})
	return n, err
}
