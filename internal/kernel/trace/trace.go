// Package trace follows TCP connections in the kernel, by BPF programs on tracepoints, and
// adds up there who opened them, who closed them, and how they ended. It knows what the
// tracepoints tell; it reads no socket and no process by itself, and refuses to keep
// anything for each connection in user space. Nothing is pinned: when the process ends,
// however it ends, the kernel takes everything back.
package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// ErrForbidden means that the kernel allows this process no BPF program: it takes CAP_BPF
// and CAP_PERFMON (or CAP_SYS_ADMIN), and may be locked down for all.
var ErrForbidden = errors.New("BPF is not allowed to this process")

// ErrUnsupported means that this kernel cannot do it: it is older than 5.8, or was built
// without BPF or BTF.
var ErrUnsupported = errors.New("this kernel cannot trace connections by BPF")

// Options say what to follow. A limit of 0 is the default.
type Options struct {
	// MaxGroups bounds the groups that are told apart at a time; what does not fit is added up
	// in one. MaxConnections bounds the open connections whose beginning is remembered.
	MaxGroups, MaxConnections int
	// MaxOwners bounds the makers of TIME_WAIT sockets that are remembered, the oldest
	// forgotten first, more or less (BPF_MAP_TYPE_LRU_HASH). With 0 none are; it takes kernel 5.12.
	MaxOwners int
	// Listeners name the owners of accepted connections. Those that begin to listen
	// later are learnt.
	Listeners []Listener
	// Family follows only connections of this process's children and theirs, from those on
	// that start after Load.
	Family bool
	// Netns are the namespaces to follow connections in, where that is not all. Beyond 8 it
	// is all: the kernel then compares too much.
	Netns []Netns
	// Events tells each end of a connection, or those that pass.
	Events *Filter
}

// Defaults of Options, and the size of the buffer for events. A group takes 1.6 KB, a
// connection 32 B, an owner 104 B.
const (
	defaultGroups      = 4096
	defaultConnections = 65536
	maxFamily          = 16384
	maxNetns           = 8 // NETNSES of trace.h
	eventRoom          = 1 << 20
)

// Listener is who listens on an address of a namespace.
type Listener struct {
	Netns   Netns
	Local   tcp.Endpoint // an address that is 0.0.0.0, :: or not valid is any
	Process string
	PID     uint32
}

// Netns identifies a network namespace: by its SO_NETNS_COOKIE, before kernel 5.14 by its
// inode.
type Netns uint64

// Tracer follows connections until it is closed.
type Tracer struct {
	objects   *ebpf.Collection
	links     []link.Link
	memory    *ebpf.Memory // of the groups
	most      int
	keeper    keeper
	reasons   []string
	ownerless error // why no owners are kept
}

// Load brings the programs into the kernel. Where that cannot be the error is ErrForbidden
// or ErrUnsupported, with the kernel's own reason.
func Load(o Options) (*Tracer, error) {
	t := &Tracer{most: orDefault(o.MaxGroups, defaultGroups)}
	t.keeper = newKeeper(t.most)
	var err error
	t.objects, err = loadBest(o)
	if errors.Is(err, ErrForbidden) {
		if lower, refused := raiseMemlock(); refused == nil {
			defer lower()
			t.objects, err = loadBest(o)
		}
	}
	if err != nil && o.MaxOwners > 0 && !errors.Is(err, ErrForbidden) {
		// The helper that reads a socket's cookie came to tracing after the rest.
		t.ownerless = err
		o.MaxOwners = 0
		t.objects, err = loadBest(o)
	}
	if err != nil {
		return nil, err
	}
	if err := t.start(o); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// raiseMemlock lifts RLIMIT_MEMLOCK, against which BPF's tables count before kernel 5.11, until lower
// is called: this process's children are to have the limit that it was given.
func raiseMemlock() (lower func(), err error) {
	var given unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &given); err != nil {
		return nil, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return nil, err
	}
	return func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &given) }, nil // what may be raised may be lowered
}

// loadBest tries the variants of the programs, the one that tells more first.
func loadBest(o Options) (*ebpf.Collection, error) {
	objects, err := loadVariant(o, bpfProgSendResetWithoutReason)
	if err != nil && !errors.Is(err, ErrForbidden) {
		return loadVariant(o, bpfProgSendReset)
	}
	return objects, err
}

// hasNetnsCookie tells whether namespaces are told apart by SO_NETNS_COOKIE.
func hasNetnsCookie() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return err == nil
}

func loadVariant(o Options, without string) (*ebpf.Collection, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	delete(spec.Programs, without)
	if !o.Family {
		delete(spec.Programs, bpfProgProcessFork)
		delete(spec.Programs, bpfProgProcessFree)
	}
	groups := uint32(orDefault(o.MaxGroups, defaultGroups))
	// A power of two, for the programs to cut a hash down to.
	connections := uint32(1) << bits.Len(uint(orDefault(o.MaxConnections, defaultConnections)-1))
	page := uint32(os.Getpagesize())
	for name, most := range map[string]uint32{
		bpfMapGroups:       groups,
		bpfMapGroupNumbers: groups,
		bpfMapFreeGroups:   groups,
		bpfMapConnections:  connections,
		bpfMapOwners:       uint32(max(1, o.MaxOwners)),
		bpfMapFamily:       maxFamily,
		bpfMapEvents:       page,
	} {
		spec.Maps[name].MaxEntries = most
	}
	set := map[string]any{
		bpfVarKeepOwners:      o.MaxOwners > 0,
		bpfVarOnlyFamily:      o.Family,
		bpfVarTellEvents:      o.Events != nil,
		bpfVarConnectionsMask: connections - 1,
		bpfVarNetnsByCookie:   hasNetnsCookie(),
	}
	if len(o.Netns) <= maxNetns {
		var only [maxNetns]uint64
		for i, ns := range o.Netns {
			only[i] = uint64(ns)
		}
		set[bpfVarOnlyNetns] = only
	}
	if o.Events != nil {
		spec.Maps[bpfMapEvents].MaxEntries = max(eventRoom, page)
		set[bpfVarEventRoom] = uint32(eventRoom)
		set[bpfVarFilter] = o.Events.kernel()
	}
	for name, value := range set {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, err
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, reason(err)
	}
	return objects, nil
}

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

func reason(err error) error {
	// The verifier's log is many lines, and the last error of the chain says it all.
	verifier := (*ebpf.VerifierError)(nil)
	if errors.As(err, &verifier) {
		err = verifier.Cause
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) && verifier == nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, err)
}

// start fills the tables and attaches the programs.
func (t *Tracer) start(o Options) error {
	free := t.objects.Maps[bpfMapFreeGroups]
	for number := uint32(1); number < uint32(t.most); number++ {
		if err := free.Put(nil, number); err != nil {
			return fmt.Errorf("number the groups: %w", err)
		}
	}
	var err error
	if t.memory, err = t.objects.Maps[bpfMapGroups].Memory(); err != nil {
		return fmt.Errorf("map the groups: %w", err)
	}
	for _, l := range o.Listeners {
		key := bpfListenerKey{Netns: uint64(l.Netns), Port: l.Local.Port}
		if l.Local.Addr.IsValid() && !l.Local.Addr.IsUnspecified() {
			key.Local = l.Local.Addr.As16()
		}
		value := bpfListener{Comm: comm(l.Process), Pid: l.PID}
		if err := t.objects.Maps[bpfMapListeners].Put(key, value); err != nil {
			return fmt.Errorf("name a listener: %w", err)
		}
	}
	if o.Family {
		if err := t.objects.Maps[bpfMapFamily].Put(uint32(os.Getpid()), uint8(1)); err != nil {
			return fmt.Errorf("name the family: %w", err)
		}
	}
	t.reasons = resetReasons()
	return t.attach()
}

// attach has the kernel run the programs.
func (t *Tracer) attach() error {
	for _, program := range t.objects.Programs {
		attached, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return reason(err)
		}
		t.links = append(t.links, attached)
	}
	return nil
}

// Close takes the programs out of the kernel.
func (t *Tracer) Close() error {
	var errs []error
	for _, l := range t.links {
		errs = append(errs, l.Close())
	}
	t.objects.Close()
	return errors.Join(errs...)
}

// Missing says why what Options asked for is not all done, nil where it is: before kernel
// 5.12 the makers of TIME_WAIT sockets are not kept.
func (t *Tracer) Missing() error { return t.ownerless }

// Missed counts the events that programs were not run for, since an interrupt came while
// the same program ran on that CPU (recursion_misses of struct bpf_prog_info, kernel 5.12).
// What they would have counted is counted nowhere.
func (t *Tracer) Missed() (uint64, error) {
	var missed uint64
	for name, program := range t.objects.Programs {
		if name == bpfProgDestroySock {
			continue // it counts nothing that has not been missed before
		}
		stats, err := program.Stats()
		if err != nil {
			return 0, fmt.Errorf("count missed events: %w", err)
		}
		missed += stats.RecursionMisses
	}
	return missed, nil
}

// The place of a group in the table: array_map_alloc of kernel/bpf/arraymap.c.
const (
	groupSize   = unsafe.Sizeof(bpfGroup{})
	groupStride = int64(groupSize+7) &^ 7
)

func bytesOf(g *bpfGroup) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(g)), groupSize) }

// Groups calls visit for each group, with the sums since Load. The group is overwritten after
// visit returns. What did not fit into groups comes first, as the group without a name. When few
// are free, those in which nothing happens any more are given back: each is visited a last time
// as it was before, with Gone set.
func (t *Tracer) Groups(visit func(*Group)) error {
	var in bpfGroup
	var out Group
	used := make([]byte, 4)
	now, staying := time.Now(), 0
	for number := range t.most {
		at := int64(number) * groupStride
		if _, err := t.memory.ReadAt(used, at+int64(unsafe.Offsetof(in.Used))); err != nil {
			return fmt.Errorf("read the groups: %w", err)
		}
		if number > 0 && binary.NativeEndian.Uint32(used) == 0 {
			continue
		}
		if _, err := t.memory.ReadAt(bytesOf(&in), at); err != nil {
			return fmt.Errorf("read the groups: %w", err)
		}
		h := t.keeper.look(number, &in, now)
		out.Number, out.Serial = number, h.serial
		var err error
		if out.Gone, err = t.giveBack(number, h, &in, now); err != nil {
			return err
		}
		if !h.leaving && !out.Gone {
			staying++
		}
		out.from(&in)
		visit(&out)
	}
	t.keeper.used = staying
	return nil
}
