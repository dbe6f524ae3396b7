package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// drainArgument makes this program drain the sockets of its namespace, as a
// process of its own.
const drainArgument = "drain"

// drain asks sock_diag for all TCP sockets and receives the answer without a look
// at what is in it: the least that any reader of the same dump must do.
func drain() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)

	// A struct nlmsghdr and a struct inet_diag_req of TCPDIAG_GETSOCK, all states but
	// those that are only bound (13): to look for these takes the kernel a walk of
	// its own, and no other program here asks for it.
	request := make([]byte, unix.NLMSG_HDRLEN+60)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], 18)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(request[unix.NLMSG_HDRLEN+52:], 1<<13-1)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buffer := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if n < unix.NLMSG_HDRLEN {
			return fmt.Errorf("%d bytes are no netlink message", n)
		}
		switch binary.NativeEndian.Uint16(buffer[4:]) {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return nil
		}
	}
}
