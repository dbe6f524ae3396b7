package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"linger/internal/tcp"
)

// Filter says which sockets are wanted by their endpoints: those of which the local
// one is chosen by any of Local, the remote one by any of Remote, and one of whose
// ports is among Ports. What is empty chooses all.
type Filter struct {
	Local, Remote []tcp.Match
	Ports         []uint16
}

// Chooses tells whether the filter wants a socket. The kernel filters by address
// family too, so that its answer may hold what this refuses: an IPv6 prefix that holds
// IPv4-mapped addresses.
func (f *Filter) Chooses(s *tcp.Socket) bool {
	return (len(f.Ports) == 0 || slices.Contains(f.Ports, s.LocalPort) || slices.Contains(f.Ports, s.RemotePort)) &&
		(len(f.Local) == 0 || tcp.AnyChooses(f.Local, tcp.Endpoint{Addr: s.Local.Netip(), Port: s.LocalPort})) &&
		(len(f.Remote) == 0 || tcp.AnyChooses(f.Remote, tcp.Endpoint{Addr: s.Remote.Netip(), Port: s.RemotePort}))
}

// Operations of the kernel's filter (INET_DIAG_BC_* of linux/inet_diag.h,
// inet_diag_bc_run of net/ipv4/inet_diag.c). An operation is a struct inet_diag_bc_op:
// a code, how many bytes further it goes on where it holds, and where it does not.
// The filter holds where it ends exactly behind the last operation, and does not where
// it ends four bytes further.
const (
	opJump      = 1 // never holds
	opSourceGE  = 2
	opSourceLE  = 3
	opRemoteGE  = 4
	opRemoteLE  = 5
	opSource    = 7 // a struct inet_diag_hostcond follows
	opRemote    = 8
	opSize      = 4
	hostcond    = 8          // without its address
	noPort      = ^uint32(0) // any
	attrFilter  = 1          // INET_DIAG_REQ_BYTECODE
	mostProgram = 32 << 10
)

// encode writes the filter for the kernel. It is nil where all sockets are wanted, and
// where the filter is longer than a jump reaches: then the kernel filters nothing.
func (f *Filter) encode() []byte {
	var ports []operation
	for _, p := range f.Ports {
		ports = append(ports, equal(opSourceGE, opSourceLE, p), equal(opRemoteGE, opRemoteLE, p))
	}
	var program []byte
	groups := [][]operation{ports, conditions(opSource, f.Local), conditions(opRemote, f.Remote)}
	for _, group := range slices.Backward(groups) {
		program = append(anyOf(group, len(program)), program...)
		if len(program) > mostProgram {
			return nil
		}
	}
	return program
}

// operation is one or more operations that hold together or not at all; where each
// goes on when it does not hold is still open.
type operation [][]byte

func conditions(code byte, matches []tcp.Match) (all []operation) {
	for _, m := range matches {
		all = append(all, operation{condition(code, m)})
	}
	return all
}

// condition compares an address and port with a struct inet_diag_hostcond. An IPv4
// prefix also holds for IPv4-mapped IPv6 addresses.
func condition(code byte, m tcp.Match) []byte {
	family, bits, addr := byte(0), 0, []byte(nil) // AF_UNSPEC: any address
	if m.Prefix.IsValid() {
		family, bits, addr = familyOf(m.Prefix.Addr()), m.Prefix.Bits(), m.Prefix.Addr().AsSlice()
	}
	port := noPort
	if m.Port != 0 {
		port = uint32(m.Port)
	}
	b := make([]byte, opSize+hostcond, opSize+hostcond+len(addr))
	b[0], b[1] = code, byte(opSize+hostcond+len(addr))
	b[4], b[5] = family, byte(bits)
	binary.NativeEndian.PutUint32(b[8:], port)
	return append(b, addr...)
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return 2 // AF_INET
	}
	return 10 // AF_INET6
}

// equal holds for one port. The kernel's own operation for it is younger (5.7).
func equal(ge, le byte, port uint16) operation {
	compare := func(code byte) []byte {
		b := make([]byte, 2*opSize)
		b[0], b[1] = code, byte(len(b))
		binary.NativeEndian.PutUint16(b[opSize+2:], port)
		return b
	}
	return operation{compare(ge), compare(le)}
}

// anyOf joins operations so that one of them must hold, in front of rest more bytes.
func anyOf(group []operation, rest int) []byte {
	size := 0
	for i, operation := range group {
		for _, part := range operation {
			size += len(part)
		}
		if i < len(group)-1 {
			size += opSize
		}
	}
	var b []byte
	for i, operation := range group {
		last := i == len(group)-1
		next := len(b) // of the operation to try after this one
		for _, part := range operation {
			next += len(part)
		}
		next += opSize
		for _, part := range operation {
			no := next - len(b)
			if last {
				no = size + rest + opSize - len(b)
			}
			binary.NativeEndian.PutUint16(part[2:], uint16(no))
			b = append(b, part...)
		}
		if !last {
			jump := []byte{opJump, opSize, 0, 0}
			binary.NativeEndian.PutUint16(jump[2:], uint16(size-len(b)))
			b = append(b, jump...)
		}
	}
	return b
}
