package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// without WHAT COMMAND...: runs the command where the host lacks something. A kernel
// cannot be made to lose IPv6 or nf_tables for one test, so that they are faked by a
// filter of system calls (seccomp(2)) that answers as a kernel without them does.
func without() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: without tun|ipv6|nftables COMMAND"))
	}
	runtime.LockOSThread()
	switch os.Args[1] {
	case "tun":
		fail(unix.Unshare(unix.CLONE_NEWNS))
		fail(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		fail(unix.Mount("none", "/dev/net", "tmpfs", 0, ""))
	case "ipv6":
		fail(refuseSockets(0, unix.AF_INET6, unix.EAFNOSUPPORT))
	case "nftables":
		fail(refuseSockets(2, unix.NETLINK_NETFILTER, unix.EPROTONOSUPPORT))
	default:
		fail(fmt.Errorf("without %s: want tun, ipv6 or nftables", os.Args[1]))
	}
	path, err := exec.LookPath(os.Args[2])
	fail(err)
	fail(unix.Exec(path, os.Args[2:], os.Environ()))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "without:", err)
		os.Exit(125)
	}
}

// refuseSockets has socket() fail where one of its arguments has this value.
func refuseSockets(argument, value uint32, errno unix.Errno) error {
	const number, arguments = 0, 16 // offsets in struct seccomp_data; an argument has 8 bytes
	low := uint32(0)
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		low = 4 // the low half comes second in big endian
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: arguments + 8*argument + low},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
