package trace

import (
	"bytes"
	"net/netip"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"linger/internal/tcp"
)

// Ending is how a connection began to end, or why it was never established.
type Ending uint8

// The endings, by their numbers in trace.h.
const (
	ClosedHere  = Ending(bpfEndingCLOSED_HERE)  // this end sent the first FIN
	ClosedThere = Ending(bpfEndingCLOSED_THERE) // the other end did
	Aborted     = Ending(bpfEndingABORTED)      // this end dropped it without a FIN
	ResetThere  = Ending(bpfEndingRESET_THERE)  // a reset came in
	TimedOut    = Ending(bpfEndingTIMED_OUT)    // the other end was silent
	NoPort      = Ending(bpfEndingNO_PORT)      // connect() found no source port
	PortTaken   = Ending(bpfEndingPORT_TAKEN)   // the bound source port was in use for the destination
	Refused     = Ending(bpfEndingREFUSED)      // connect() was answered by a reset
	Unanswered  = Ending(bpfEndingUNANSWERED)   // connect() had no answer
	Unreachable = Ending(bpfEndingUNREACHABLE)  // another error of the network
	GivenUp     = Ending(bpfEndingGIVEN_UP)     // connect() was given up by its caller
	Endings     = int(bpfEndingENDINGS)         // how many numbers there are
)

var endingNames = [Endings]string{
	ClosedHere: "closed-here", ClosedThere: "closed-there", Aborted: "aborted-here", ResetThere: "reset-there",
	TimedOut: "timed-out", NoPort: "no-port", PortTaken: "port-taken", Refused: "refused",
	Unanswered: "unanswered", Unreachable: "unreachable", GivenUp: "given-up",
}

// String is the ending as a word of the output.
func (e Ending) String() string {
	if int(e) < Endings && endingNames[e] != "" {
		return endingNames[e]
	}
	return "unknown"
}

// Failed is true of an ending of a connect() that did not succeed.
func (e Ending) Failed() bool { return e >= NoPort }

// Key is what the connections of a group share.
type Key struct {
	Netns   Netns
	Cgroup  uint64 // the inode number of its directory, 1 for the root
	Process string // the name of its leader, empty where it was not seen
	Role    tcp.Role
	// Local has the port of an acceptor alone, Remote is that of a connector.
	Local, Remote tcp.Endpoint
}

// Group is the sum of connections that share a Key.
type Group struct {
	Key
	Number     int    // 0 for what did not fit
	Serial     uint64 // of no other group, though it has the same Number or Key later
	Gone       bool   // it is not visited again
	NetnsInode uint32
	PID        uint32 // of one of the processes
	Live       uint32 // connections, among those whose beginning was seen
	Counts
}

// Counts are since Load.
type Counts struct {
	Endings [Endings]uint64
	Opened  uint64 // connections established
	Bound   uint64 // of these, connectors that had a source port before connect()
	// ToTimeWait and ToFinWait2 are the connections closed here that became a time-wait
	// socket: after the peer's FIN, and before it.
	ToTimeWait, ToFinWait2 uint64
	ResetsReceived         uint64
	ResetsSent             [32]uint64 // by reason, see Tracer.Reason
	Untimed                uint64     // ended, and their beginning was not seen
	Untracked              uint64     // their beginning was not kept, for there were too many
	BytesSent              uint64     // acknowledged
	BytesReceived          uint64
	Life                   [160]uint32 // see LifeStep
	SizeSent, SizeReceived [44]uint32  // see SizeStep
}

func (g *Group) from(in *bpfGroup) {
	g.Key = keyOf(&in.Key)
	g.NetnsInode, g.PID, g.Live = in.NetnsInode, in.Pid, in.Live
	c := &g.Counts
	copy(c.Endings[1:], in.Numbers[1:])
	c.Opened = in.Numbers[bpfNumberOPENED]
	c.Bound = in.Numbers[bpfNumberBOUND]
	c.ToTimeWait = in.Numbers[bpfNumberTO_TIME_WAIT]
	c.ToFinWait2 = in.Numbers[bpfNumberTO_FIN_WAIT2]
	c.ResetsReceived = in.Numbers[bpfNumberRESETS_RECEIVED]
	c.ResetsSent = in.ResetsSent
	c.Untimed = in.Numbers[bpfNumberUNTIMED]
	c.Untracked = in.Numbers[bpfNumberUNTRACKED]
	c.BytesSent = in.Numbers[bpfNumberBYTES_SENT]
	c.BytesReceived = in.Numbers[bpfNumberBYTES_RECEIVED]
	c.Life, c.SizeSent, c.SizeReceived = in.Life, in.Sent, in.Received
	c.countEmpty()
}

// countEmpty adds the connections on which nothing was sent, or received, to the sizes, for the
// programs count what has bytes alone.
func (c *Counts) countEmpty() {
	ended := c.Untimed
	for _, n := range c.Life {
		ended += uint64(n)
	}
	for _, sizes := range []*[44]uint32{&c.SizeSent, &c.SizeReceived} {
		var some uint64
		for _, n := range sizes[1:] {
			some += uint64(n)
		}
		sizes[0] = uint32(max(ended, some) - some)
	}
}

func keyOf(in *bpfGroupKey) Key {
	k := Key{Netns: Netns(in.Netns), Cgroup: in.Cgroup, Process: name(in.Comm), Role: roleOf(in.Role)}
	if k.Role != tcp.RoleUnknown {
		k.Local = tcp.Endpoint{Addr: netip.AddrFrom16(in.Local).Unmap(), Port: in.LocalPort}
	}
	if k.Role == tcp.Connector {
		k.Remote = tcp.Endpoint{Addr: netip.AddrFrom16(in.Remote).Unmap(), Port: in.RemotePort}
	}
	return k
}

// roleOf is by enum role of trace.h.
func roleOf(role uint8) tcp.Role {
	switch role {
	case 1:
		return tcp.Connector
	case 2:
		return tcp.Acceptor
	default:
		return tcp.RoleUnknown
	}
}

// name is the text of a comm, which ends at its first zero byte.
func name(comm [16]int8) string {
	b := *(*[16]byte)(unsafe.Pointer(&comm))
	text, _, _ := bytes.Cut(b[:], []byte{0})
	return string(text)
}

func comm(name string) (comm [16]int8) {
	for i := range min(len(name), len(comm)-1) {
		comm[i] = int8(name[i])
	}
	return comm
}

// LifeStep is the shortest life in microseconds that Life[step] counts. There are four steps
// to an octave, so that a life is known to within a quarter.
func LifeStep(step int) uint64 {
	if step < 4 {
		return uint64(step)
	}
	octave := step/4 + 2 // count_life of group.h
	return uint64(4+step%4) << (octave - 3)
}

// SizeStep is the least number of bytes that SizeSent[step] and SizeReceived[step] count. A step is
// an octave, the last is for all beyond.
func SizeStep(step int) uint64 {
	if step == 0 {
		return 0
	}
	return 1 << (step - 1)
}

// resetReasons are the names of enum sk_rst_reason in the running kernel (include/net/rstreason.h,
// kernel 6.8), by number.
func resetReasons() []string {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil
	}
	var enum *btf.Enum
	if spec.TypeByName("sk_rst_reason", &enum) != nil {
		return nil
	}
	var names []string
	for _, v := range enum.Values {
		for uint64(len(names)) <= v.Value && v.Value < 1<<10 {
			names = append(names, "")
		}
		names[v.Value] = strings.ToLower(strings.TrimPrefix(v.Name, "SK_RST_REASON_"))
	}
	return names
}

// Reason names the reason of a reset that was sent, in the words of the running kernel:
// tcp_state, tcp_abort_on_close. Before kernel 6.8 all are unknown.
func (t *Tracer) Reason(number int) string {
	if number < len(t.reasons) && t.reasons[number] != "" {
		return t.reasons[number]
	}
	return "unknown"
}
