package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"linger/internal/tcp"
)

// Filter says which ends of connections are told. It runs in the kernel. A field of its zero
// value lets all pass.
type Filter struct {
	Process   string
	Role      tcp.Role
	Port      uint16       // of either end
	Remote    netip.Prefix // that holds the remote address
	LeastLife time.Duration
	Endings   []Ending
}

func (f *Filter) kernel() bpfEventFilter {
	k := bpfEventFilter{LeastLife: uint64(f.LeastLife.Microseconds()), Comm: comm(f.Process), Port: f.Port}
	for _, e := range f.Endings {
		k.Endings |= 1 << e
	}
	switch f.Role {
	case tcp.Connector:
		k.Role = 1
	case tcp.Acceptor:
		k.Role = 2
	}
	if f.Remote.IsValid() {
		k.Remote = f.Remote.Addr().As16()
		k.RemoteBits = uint8(f.Remote.Bits())
		if f.Remote.Addr().Is4() {
			k.RemoteBits += 96 // of ::ffff:0:0
		}
	}
	return k
}

// Event is one end of a connection.
type Event struct {
	Netns         Netns
	NetnsInode    uint32
	Cgroup        uint64
	Process       string
	PID           uint32 // of the last process that was seen to use it, 0 if none was
	Role          tcp.Role
	Local, Remote netip.AddrPort
	Ended         time.Time
	Life          time.Duration // since it was established, 0 where that was not seen
	BytesSent     uint64        // acknowledged
	BytesReceived uint64
	Ending        Ending
	// Reason is that of the reset which this end sent, empty where it sent none.
	Reason string
	// Weight is how many ends this one stands for: more than one while more come than are
	// read.
	Weight uint32
}

// Events calls visit for each end of a connection that passes the filter, until ctx is
// cancelled. It returns how many ends came after the last one that was told, and are in no
// weight.
func (t *Tracer) Events(ctx context.Context, visit func(*Event)) (untold uint64, err error) {
	reader, err := ringbuf.NewReader(t.objects.Maps[bpfMapEvents])
	if err != nil {
		return 0, fmt.Errorf("read the ends of connections: %w", err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Flush() })
	defer stop()
	offset := clockOffset()
	var record ringbuf.Record
	var in bpfEvent
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read the ends of connections: %w", err)
		}
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &in); err != nil {
			return 0, fmt.Errorf("read the ends of connections: %w", err)
		}
		out := t.event(&in, offset)
		visit(&out)
	}
	var perCPU []uint64
	if err := t.objects.Maps[bpfMapUntold].Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("count the ends that were not told: %w", err)
	}
	for _, n := range perCPU {
		untold += n
	}
	return untold, nil
}

func (t *Tracer) event(in *bpfEvent, offset time.Duration) Event {
	key := keyOf(&in.Key)
	e := Event{
		Netns: key.Netns, NetnsInode: in.NetnsInode, Cgroup: key.Cgroup, Process: key.Process, PID: in.Pid, Role: key.Role,
		Local:  netip.AddrPortFrom(netip.AddrFrom16(in.Key.Local).Unmap(), in.LocalPort),
		Remote: netip.AddrPortFrom(netip.AddrFrom16(in.Remote).Unmap(), in.RemotePort),
		Ended:  time.Unix(0, int64(in.Ended)).Add(offset), Life: time.Duration(in.Life) * time.Microsecond,
		BytesSent: in.BytesSent, BytesReceived: in.BytesReceived,
		Ending: Ending(in.Ending), Weight: in.Weight,
	}
	if in.Reason > 0 {
		e.Reason = t.Reason(int(in.Reason) - 1)
	}
	return e
}

// clockOffset is what leads from the kernel's monotonic clock to the time of day.
func clockOffset() time.Duration {
	var monotonic unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - monotonic.Nano())
}
