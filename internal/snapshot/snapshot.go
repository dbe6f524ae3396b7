// Package snapshot is one instant of a host as plain data: what was read, and
// nothing that was concluded. Its JSON form is the capture format and the form
// of test fixtures.
//
// Unknown is a value here, never a zero: a key that is absent from Settings or
// Counters does not exist on that kernel or could not be read, a nil pointer was
// not learnt, and Gaps says why and what it needs.
package snapshot

import (
	"net/netip"
	"strings"
	"time"

	"linger/internal/tcp"
)

// Schema names the format of a snapshot's JSON form.
const Schema = "linger.snapshot/1"

// Snapshot is one instant of a host. Counters were read twice, WindowMS apart as
// measured, unless that is zero.
type Snapshot struct {
	Schema   string    `json:"schema"`
	TakenAt  time.Time `json:"taken_at"`
	WindowMS int64     `json:"window_ms"`
	// TracedMS is how long the kernel followed connections before the sockets were read, 0 where
	// it did not.
	TracedMS   int64       `json:"traced_ms,omitempty"`
	Host       Host        `json:"host"`
	Namespaces []Namespace `json:"namespaces"`
	Gaps       []Gap       `json:"gaps"`
}

// Gap is something that could not be read.
type Gap struct {
	// What was not read, such as "sockets" or "owners of sockets".
	What string `json:"what"`
	// Netns is the label of the namespace, empty where the whole host is meant.
	Netns string `json:"netns,omitempty"`
	// Cause is the error as the kernel gave it.
	Cause string `json:"cause"`
	// Needs is what would close the gap, such as "root" or "kernel 5.14".
	Needs string `json:"needs"`
}

// Host is what all namespaces of a host share.
type Host struct {
	Name   string `json:"name"`
	Kernel string `json:"kernel"` // as uname -r prints it
	BootID string `json:"boot_id"`
	CPUs   int    `json:"cpus"`

	Memory   *Memory             `json:"memory,omitempty"`
	Load     *Load               `json:"load,omitempty"`
	Pressure map[string]Pressure `json:"pressure,omitempty"` // by resource: cpu, memory, io

	// Settings are the sysctls that the kernel keeps once for the whole host.
	Settings Settings `json:"settings"`
	// Boot is what the files on disk would set at the next boot.
	Boot []BootSetting `json:"boot,omitempty"`

	// Of /proc/net/sockstat, counted over all namespaces.
	Orphans        *int64 `json:"orphans,omitempty"`
	TCPMemoryPages *int64 `json:"tcp_memory_pages,omitempty"`

	// Softnet is the sum over CPUs of /proc/net/softnet_stat, under the names
	// processed, dropped and time_squeeze.
	Softnet Counters `json:"softnet"`
}

// Memory is of /proc/meminfo, in bytes.
type Memory struct {
	Total     uint64 `json:"total_bytes"`
	Available uint64 `json:"available_bytes"`
}

// Load is the load average over 1, 5 and 15 minutes.
type Load struct {
	One     float64 `json:"one"`
	Five    float64 `json:"five"`
	Fifteen float64 `json:"fifteen"`
}

// Pressure is the share of time, in percent over the last 10 s, in which some or
// all tasks waited for a resource (Documentation/accounting/psi.rst).
type Pressure struct {
	Some float64 `json:"some_percent"`
	Full float64 `json:"full_percent"`
}

// BootSetting is one key that a file on disk would set at the next boot.
type BootSetting struct {
	Key   string `json:"key"` // with dots: net.ipv4.tcp_fin_timeout
	Value string `json:"value"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	// Loaders are the programs for which this file has the last word on the key:
	// systemd-sysctl, or procps (sysctl --system). They differ in whether and when
	// they read /etc/sysctl.conf.
	Loaders []string `json:"loaders"`
}

// Namespace is one network namespace.
type Namespace struct {
	// Cookie is SO_NETNS_COOKIE, never used twice between boots; 0 where the
	// kernel has none (before 5.14).
	Cookie uint64 `json:"cookie"`
	// Inode is that of the namespace file; the kernel uses it again.
	Inode uint64 `json:"inode"`
	Label Label  `json:"label"`
	// Own is true for the namespace that linger itself runs in.
	Own bool `json:"own"`
	// PID is a process in the namespace, 0 where none is known.
	PID int `json:"pid,omitempty"`
	// Path is the file under /run/netns, or the one that was named where no process is in
	// the namespace; empty where there is none.
	Path string `json:"path,omitempty"`

	Addresses []netip.Addr `json:"addresses"`
	// Settings are the sysctls that the kernel keeps for each namespace.
	Settings Settings `json:"settings"`
	// Counters are those of /proc/net/netstat and /proc/net/snmp, named as in
	// nstat: TcpExtTW, TcpOutRsts.
	Counters  Counters   `json:"counters"`
	Sockstat  *Sockstat  `json:"sockstat,omitempty"`
	Conntrack *Conntrack `json:"conntrack,omitempty"`

	// SocketsRead is false where the sockets could not be read (a gap says why);
	// it is true where sockstat says that there are none.
	SocketsRead bool `json:"sockets_read"`
	// SocketsComplete is false where reading the sockets was cut short.
	SocketsComplete bool       `json:"sockets_complete"`
	States          tcp.States `json:"states"`
	Listeners       []Listener `json:"listeners"`
	// BoundPorts are those of sockets that bound a port and do not use it yet
	// (BOUND_INACTIVE, kernel 6.8); nil where the kernel does not say, and where no
	// connector comes near half of its ports.
	BoundPorts tcp.PortSet `json:"bound_ports,omitempty"`
	// BoundTimeWait counts the ports of the range that a bind() owns and whose sockets
	// are in TIME_WAIT, listeners' and reserved ports left out: connect() passes over them
	// whatever the destination. It is nil where that was not read.
	BoundTimeWait *int `json:"bound_time_wait,omitempty"`
	// SelfConnected are the ends of connections whose two ends are one socket, at
	// most 20.
	SelfConnected []tcp.Endpoint `json:"self_connected,omitempty"`
	// Wanted are ports of services on which nobody listens, and what sits on them.
	Wanted []Wanted `json:"wanted,omitempty"`
	// Traced is the sum over all connections that were traced, nil where none was.
	Traced *TracedSums `json:"traced,omitempty"`
	// TracedGroups are the busiest of these, at most 20: a connection that was reset leaves no
	// socket, and so no group.
	TracedGroups []TracedGroup `json:"traced_groups,omitempty"`
	// Groups are in falling order of their sockets.
	Groups []Group `json:"groups"`
	// Other holds what did not fit into Groups, the smallest groups first.
	Other *Other `json:"other,omitempty"`
}

// Namespace finds a namespace: by its cookie, and where the kernel has none by its inode; nil
// where it is not in the snapshot.
func (s *Snapshot) Namespace(cookie, inode uint64) *Namespace {
	for i := range s.Namespaces {
		if s.Namespaces[i].is(cookie, inode) {
			return &s.Namespaces[i]
		}
	}
	return nil
}

func (ns *Namespace) is(cookie, inode uint64) bool {
	return cookie != 0 && ns.Cookie == cookie || cookie == 0 && inode != 0 && ns.Inode == inode
}

// Label says what a namespace belongs to.
type Label struct {
	Kind LabelKind `json:"kind"`
	Name string    `json:"name"`
}

// LabelKind is the kind of thing that a namespace belongs to.
type LabelKind string

// The kinds of label, from the best known to the least.
const (
	LabelHost      LabelKind = "host"
	LabelPod       LabelKind = "pod"
	LabelContainer LabelKind = "container"
	LabelNamed     LabelKind = "named"   // under /run/netns
	LabelProcess   LabelKind = "process" // the command of its oldest process
)

// String writes the label for a person: host, netns and the name under
// /run/netns, or kind and name.
func (l Label) String() string {
	switch l.Kind {
	case LabelHost:
		return "host"
	case LabelNamed:
		return "netns " + l.Name
	case "":
		return l.Name
	default:
		return string(l.Kind) + " " + l.Name
	}
}

// ParseLabel takes what String writes. A text that is not of that form has no kind, and
// is the name.
func ParseLabel(text string) Label {
	kind, name, found := strings.Cut(text, " ")
	switch k := LabelKind(kind); {
	case text == "host":
		return Label{LabelHost, text}
	case !found:
		return Label{Name: text}
	case kind == "netns":
		return Label{LabelNamed, name}
	case k == LabelPod || k == LabelContainer || k == LabelProcess:
		return Label{k, name}
	default:
		return Label{Name: text}
	}
}

// Sockstat is of /proc/net/sockstat and sockstat6, the part that is counted per
// namespace.
type Sockstat struct {
	InUse4   int64 `json:"in_use_ipv4"`
	InUse6   int64 `json:"in_use_ipv6"`
	TimeWait int64 `json:"time_wait"` // IPv4 and IPv6, FIN_WAIT2 time-wait sockets included
}

// Conntrack is the connection-tracking table of a namespace.
type Conntrack struct {
	Count int64 `json:"count"`
	Max   int64 `json:"max"`
	// TimeoutSeconds is by conntrack's own name of the state: time_wait,
	// established.
	TimeoutSeconds map[string]int64 `json:"timeout_seconds"`
	// Counters are the sums over CPUs of /proc/net/stat/nf_conntrack, by its own
	// column names: insert_failed, drop, early_drop, invalid.
	Counters Counters `json:"counters"`
	// Sample is of its entries, nil where none was taken: it is when the table is half
	// full or drops.
	Sample *ConntrackSample `json:"sample,omitempty"`
}

// ConntrackSample is what the first entries of a table are. They are in the order of
// a hash, so that their shares are about those of the table.
type ConntrackSample struct {
	Entries  int  `json:"entries"`
	Complete bool `json:"complete"` // these are all
	// States is by conntrack's own name of the TCP state, udp or other.
	States map[string]int `json:"states"`
	// Translated are those whose source address was changed.
	Translated int `json:"translated"`
	// Translations are the busiest of them, at most 10.
	Translations []Translation `json:"translations,omitempty"`
}

// Translation is what source NAT makes of connections to one destination.
type Translation struct {
	Source      tcp.Endpoint `json:"source"` // the address that the destination sees
	Destination tcp.Endpoint `json:"destination"`
	Entries     int          `json:"entries"` // each has a port of Source
	TimeWait    int          `json:"time_wait"`
}

// Wanted is a port on which nobody listens, and that a service wants.
type Wanted struct {
	Service tcp.Endpoint `json:"service"`
	// Asked is set where the user named the service; else it had connections within
	// the last minute.
	Asked bool `json:"asked"`
	// Remains are the sockets of its former connections.
	Remains tcp.States `json:"remains"`
	// Outgoing are connections that other programs opened from the port, at most 5.
	Outgoing []Connection `json:"outgoing,omitempty"`
}

// Connection is one connection.
type Connection struct {
	Local  tcp.Endpoint `json:"local"`
	Remote tcp.Endpoint `json:"remote"`
	State  string       `json:"state"`
	Owners []Owner      `json:"owners,omitempty"`
	// ByPort: that it goes out is told by its remote port alone, which is none that
	// connect() chooses here.
	ByPort bool `json:"by_port,omitempty"`
}

// Listener is a socket in LISTEN.
type Listener struct {
	Local       tcp.Endpoint `json:"local"`
	V6Only      *bool        `json:"v6only,omitempty"` // nil for IPv4, and where the kernel does not say
	AcceptQueue uint32       `json:"accept_queue"`     // connections that wait for accept
	Backlog     uint32       `json:"backlog"`          // the queue's limit
	Owners      []Owner      `json:"owners,omitempty"`
}

// Group is a set of connections that share what they compete for: for a
// connector the source address, destination address and destination port; for
// an acceptor the local address and service port.
type Group struct {
	Role tcp.Role     `json:"role"`
	Rule tcp.RoleRule `json:"rule"`
	// Local has port 0 for a connector, and for an unknown role.
	Local tcp.Endpoint `json:"local"`
	// Remote is empty for an acceptor.
	Remote tcp.Endpoint `json:"remote"`

	States tcp.States `json:"states"`
	// InRange counts the sockets of a connector whose source port lies in the
	// namespace's ip_local_port_range: those that take a port from connect().
	InRange tcp.States `json:"in_range"`
	// OtherParity counts those of InRange whose source port is odd where the range
	// begins even, or even where it begins odd. connect() takes such a port only when
	// it finds no other, bind() with port 0 prefers them (__inet_hash_connect and
	// inet_csk_find_open_port of net/ipv4).
	OtherParity int `json:"other_parity,omitempty"`
	// OtherParityOwners are those of its live sockets: who binds, and not who else has
	// connections of the group.
	OtherParityOwners []Owner `json:"other_parity_owners,omitempty"`
	// NoFile counts the full sockets that no process has (inode 0): orphans, and in
	// ESTABLISHED and CLOSE_WAIT connections that wait to be accepted.
	NoFile tcp.States `json:"no_file"`
	// YoungFinWait2 counts the time-wait sockets in FIN_WAIT2 that are younger than 3 s:
	// their peer may only be late.
	YoungFinWait2 int `json:"young_fin_wait2,omitempty"`
	// Unanswered counts the sockets that have sent the same segment, or a probe,
	// three times or more without an answer.
	Unanswered tcp.States `json:"unanswered"`
	// Takeover is what connect() makes of the TIME_WAIT sockets of InRange, told of each;
	// nil where that was not read: it is for connectors of a namespace where one of them
	// has much of the range, and takes BPF.
	Takeover *Takeover `json:"takeover,omitempty"`
	// Closes is the history of the group's TIME_WAIT sockets, nil without any.
	Closes *CloseHistory `json:"closes,omitempty"`
	// Clients are an acceptor's busiest, at most 20.
	Clients []Client `json:"clients,omitempty"`
	// ClientsComplete is false where there are more clients than Clients, and
	// their counts may then be too low by what was discarded.
	ClientsComplete bool `json:"clients_complete,omitempty"`

	// CloseWait is the second look at the group's CLOSE_WAIT sockets, nil where
	// none was taken.
	CloseWait *CloseWait `json:"close_wait,omitempty"`

	// Traced is what became of its connections while they were traced, nil where nothing did.
	Traced *TracedSums `json:"traced,omitempty"`

	// Owners are of this end, Peer of the other end where it lies in a namespace
	// that was read; of an acceptor's, where most of its sockets have the same.
	Owners []Owner `json:"owners,omitempty"`
	Peer   *Peer   `json:"peer,omitempty"`
}

// Takeover counts TIME_WAIT sockets by what keeps connect() from taking their port
// over, whatever tcp_tw_reuse says now: the first reason that holds (tcp_twsk_unique of
// net/ipv4/tcp_ipv4.c, __inet_hash_connect of net/ipv4/inet_hashtables.c). They were
// counted a moment after the others of their group.
type Takeover struct {
	Bound        int `json:"bound"`              // a bind() owns the port
	NoTimestamps int `json:"without_timestamps"` // the connection used none
	Young        int `json:"young"`              // not older than tcp_tw_reuse_delay
	Ripe         int `json:"ripe"`               // nothing
	// RipeByDefault would be ripe with tcp_tw_reuse_delay at its default.
	RipeByDefault int `json:"ripe_by_default"`
	// Kept is the history of Bound and NoTimestamps together; nil where there are none,
	// and where the kernel does not tell their ages (before 6.14).
	Kept *CloseHistory `json:"kept,omitempty"`
}

// Never is how many connect() never takes over.
func (t Takeover) Never() int { return t.Bound + t.NoTimestamps }

// Sockets is how many were counted.
func (t Takeover) Sockets() int { return t.Bound + t.NoTimestamps + t.Young + t.Ripe }

// HistorySeconds is the length of a CloseHistory: TCP_TIMEWAIT_LEN of
// include/net/tcp.h, a constant of every kernel.
const HistorySeconds = 60

// CloseHistory tells when the TIME_WAIT sockets that are left entered that state.
// It is a history of the survivors.
type CloseHistory struct {
	// PerSecond[i] entered between i and i+1 seconds ago.
	PerSecond [HistorySeconds]uint32 `json:"per_second"`
	// Past are past their time: timers fire late by a step of the timer wheel.
	Past uint32 `json:"past_60s"`
	// LowerBound is set where sockets left the state early in the window
	// (TWRecycled or TCPTimeWaitOverflow rose), so that there were more closes
	// than the survivors show.
	LowerBound bool `json:"lower_bound"`
}

// Client is one remote address of an acceptor.
type Client struct {
	Addr     netip.Addr `json:"addr"`
	Sockets  int        `json:"sockets"`
	TimeWait int        `json:"time_wait"`
	FinWait2 int        `json:"fin_wait2"`      // time-wait sockets in that substate included
	Peer     *Peer      `json:"peer,omitempty"` // where the address lies in a namespace that was read
}

// CloseWait is a second look at CLOSE_WAIT sockets alone.
type CloseWait struct {
	// Old have heard nothing from their peer for 3 s at least (tcpi_last_ack_recv),
	// so that the peer's FIN is at least as old.
	Old int `json:"old"`
	// Unaccepted wait in the listener's queue: no process has them (inode 0).
	Unaccepted int `json:"unaccepted"`
	// Owners are those of the old sockets; what their Sockets lack to Old is of
	// owners that could not be told.
	Owners []Owner `json:"owners,omitempty"`
}

// Peer is the other end of a group, in a namespace that was read.
type Peer struct {
	Cookie uint64  `json:"netns_cookie"`
	Inode  uint64  `json:"netns_inode"`
	Netns  string  `json:"netns"` // its label
	Owners []Owner `json:"owners,omitempty"`
}

// Other is the sum of the groups that were discarded.
type Other struct {
	Groups int        `json:"groups"`
	States tcp.States `json:"states"`
}

// How says from what an owner is known.
type How string

const (
	// Seen: the kernel named the owner of these very sockets, or was seen at work for it.
	Seen How = "seen"
	// Inferred: the owner opens connections to the same destination, or has some open.
	Inferred How = "inferred"
	// Listening: the owner has the listener that accepts the connections.
	Listening How = "listener"
)

// Owner is a process that has, or probably had, sockets of a group.
type Owner struct {
	Process string `json:"process"` // /proc/PID/comm
	PID     int    `json:"pid"`
	// Started is the process's start in seconds since the epoch, 0 if unknown.
	Started   int64  `json:"started,omitempty"`
	Container string `json:"container,omitempty"` // its short id
	Pod       string `json:"pod,omitempty"`       // its uid
	How       How    `json:"how"`
	// Sockets is how many of the group's sockets it has; for a group of many an
	// estimate from a sample.
	Sockets int `json:"sockets,omitempty"`
	// Traced is what it did with connections of the group while they were traced.
	Traced *TracedSums `json:"traced,omitempty"`
	// Descriptors in use and the soft RLIMIT_NOFILE, nil where not readable.
	Descriptors     *int64 `json:"descriptors,omitempty"`
	DescriptorLimit *int64 `json:"descriptor_limit,omitempty"`
}
