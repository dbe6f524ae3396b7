package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"linger/internal/figure"
	"linger/internal/setting"
)

// ResourcePressure: the stack is short of CPU time or memory, and shows it.
const ResourcePressure Slug = "resource-pressure"

const keyTCPMem = setting.TCPMem

var resourcePressureRule = Rule{
	Slug:       ResourcePressure,
	Title:      "CPU or memory pressure slows the TCP stack",
	Needs:      "tcp_mem, /proc/net/sockstat, softnet_stat and the counters of /proc/net read twice",
	Thresholds: []Threshold{softnetDrops, pruneRate, stallShare},
	Remedies:   []RemedyID{ReadFaster, RaiseTCPMem, SpreadSoftirq, RaiseNetdevBacklog},
	judge:      judgeResourcePressure,
}

var (
	softnetDrops = Threshold{
		Name: "resource-pressure.drops-per-second", Default: 10, Unit: "packets/s",
		Reason: "dropped before a CPU took them: a single burst on one interface may drop a few",
	}
	pruneRate = Threshold{
		Name: "resource-pressure.prunes-per-second", Default: 10, Unit: "times/s",
		Reason: "that receive buffers overflow: one stuck program makes one or two as its peers probe it",
	}
	stallShare = Threshold{
		Name: "resource-pressure.stall-percent", Default: 60, Unit: percentUnit,
		Reason: "of the time in which tasks waited for a resource, over 10 s: only worth knowing, as long as the stack shows no sign",
	}
)

// The remedies of this problem alone.
const (
	// ReadFaster: the program takes its data in time.
	ReadFaster RemedyID = "read-faster"
	// RaiseTCPMem: a higher net.ipv4.tcp_mem.
	RaiseTCPMem RemedyID = "raise-tcp-mem"
	// SpreadSoftirq: let more CPUs receive.
	SpreadSoftirq RemedyID = "spread-softirq"
	// RaiseNetdevBacklog: a higher net.core.netdev_max_backlog.
	RaiseNetdevBacklog RemedyID = "raise-netdev-backlog"
)

func judgeResourcePressure(sc *scene) (v verdict) {
	if len(sc.places) == 0 {
		return v
	}
	sc.tcpMemory(&v)
	sc.softnet(&v)
	for _, p := range sc.places {
		sc.receiveBuffers(&v, p)
	}
	if sc.orphansRefused() {
		// A sign too, and judged with the orphans: load is then not alone.
		v.absent = "the only sign of pressure in the stack is that orphans are refused (orphan-pileup): " + sc.calm()
		return v
	}
	if len(v.findings) == 0 {
		sc.loadAlone(&v)
	}
	v.absent = "no sign of pressure in the stack: " + sc.calm()
	return v
}

// orphansRefused tells whether connections were reset in the window for want of room.
func (sc *scene) orphansRefused() bool {
	return slices.ContainsFunc(sc.places, func(p *place) bool {
		rise, _ := p.Counters.Rose(abortOnMemory)
		return rise > 0
	})
}

// calm is what the host's own numbers say.
func (sc *scene) calm() string {
	var parts []string
	if used, _, most, ok := sc.tcpPages(); ok {
		parts = append(parts, fmt.Sprintf("%s of %s pages of tcp_mem", figure.Count(used), figure.Count(most)))
	}
	if dropped, told := sc.Host.Softnet.Rose("dropped"); told {
		parts = append(parts, fmt.Sprintf("%s packets dropped for CPU time", figure.Count(float64(dropped))))
	}
	if len(parts) == 0 {
		return "none of its counters rose"
	}
	return strings.Join(parts, ", ")
}

// tcpPages are the pages that TCP's buffers use, and the second and third number of
// tcp_mem: where pressure begins, and the limit.
func (sc *scene) tcpPages() (used, pressure, most float64, ok bool) {
	fields := strings.Fields(sc.Host.Settings[keyTCPMem])
	if len(fields) != 3 || sc.Host.TCPMemoryPages == nil {
		return 0, 0, 0, false
	}
	pressure, err1 := strconv.ParseFloat(fields[1], 64)
	most, err2 := strconv.ParseFloat(fields[2], 64)
	return float64(*sc.Host.TCPMemoryPages), pressure, most, err1 == nil && err2 == nil && pressure > 0 && most > 0
}

const notTimeWait = "time-wait sockets are not charged to tcp_mem, and are freed in the timer's softirq whatever the load"

func (sc *scene) tcpMemory(v *verdict) {
	used, pressure, most, ok := sc.tcpPages()
	if !ok {
		v.unknown = append(v.unknown, Unknown{Lack: LackSettings, Needs: "readable tcp_mem and sockstat"})
		return
	}
	if used < pressure {
		return
	}
	f := draft{}
	f.Key.Part = "TCP memory"
	f.Severity, f.Confidence = Warning, High
	f.Summary = fmt.Sprintf("TCP is short of memory: its buffers use %s of %s pages", figure.Count(used), figure.Count(most))
	f.Why = "Above the second number of tcp_mem the kernel stops buffers from growing and drops what does not fit; " +
		"at the third it refuses. One limit holds for all namespaces."
	if used >= most {
		f.Severity, f.FailingNow = Critical, true
	}
	f.Evidence = []Evidence{{
		ID: "tcp-memory", Name: "TCP memory", Value: used, Limit: new(most), Unit: "pages",
		Source: "/proc/net/sockstat mem, " + keyTCPMem, Check: "grep TCP: /proc/net/sockstat; sysctl " + keyTCPMem,
	}}
	f.RuledOut = []RuledOut{{"time-wait", "TIME_WAIT", notTimeWait}}
	f.Remedies = []RemedyID{ReadFaster, RaiseTCPMem}
	f.WillNotHelp = pressureFolklore
	v.findings = append(v.findings, f)
}

func (sc *scene) softnet(v *verdict) {
	dropped, told := sc.Host.Softnet.Rose("dropped")
	squeezed, _ := sc.Host.Softnet.Rose("time_squeeze")
	if !told || sc.WindowMS == 0 || float64(dropped)*1000/float64(sc.WindowMS) < sc.threshold(softnetDrops) {
		return
	}
	seconds := float64(sc.WindowMS) / 1000
	f := draft{}
	f.Key.Part = "softnet"
	f.Severity, f.Confidence, f.FailingNow = Warning, High, true
	f.Summary = fmt.Sprintf("CPUs dropped %s packets/s before the stack saw them: their backlog was full",
		figure.Rate(float64(dropped)/seconds))
	f.Why = "Received packets wait for the softirq of a CPU in a queue of " + setting.NetdevMaxBacklog + "; " +
		"what does not fit is dropped, and TCP sends it again."
	f.Evidence = []Evidence{
		{
			ID: "dropped", Name: "softnet dropped", Value: float64(dropped), Unit: "packets",
			Source: fmt.Sprintf("/proc/net/softnet_stat, second column, over %.3g s", seconds), Check: "cat /proc/net/softnet_stat",
		},
		{
			ID: "time_squeeze", Name: "softnet time_squeeze", Value: float64(squeezed), Unit: "times",
			Source: "third column: the softirq stopped with work left", Check: "cat /proc/net/softnet_stat",
		},
	}
	f.RuledOut = []RuledOut{{"time-wait", "TIME_WAIT", notTimeWait}}
	f.Remedies = []RemedyID{SpreadSoftirq, RaiseNetdevBacklog}
	f.WillNotHelp = pressureFolklore
	v.findings = append(v.findings, f)
}

// prunes are the counters of receive buffers that did not hold what came.
var prunes = []string{"TcpExtPruneCalled", "TcpExtRcvPruned", "TcpExtOfoPruned", "TcpExtTCPRcvQDrop", "TcpExtTCPBacklogDrop"}

func (sc *scene) receiveBuffers(v *verdict, p *place) {
	if sc.WindowMS == 0 {
		return
	}
	seconds := float64(sc.WindowMS) / 1000
	var all uint64
	var evidence []Evidence
	for _, name := range prunes {
		if rise, _ := p.Counters.Rose(name); rise > 0 {
			all += rise
			evidence = append(evidence, Evidence{
				ID: EvidenceID(name), Name: name[len("TcpExt"):] + " rise", Value: float64(rise), Unit: "times",
				Source: fmt.Sprintf("/proc/net/netstat, over %.3g s", seconds), Check: p.in("nstat -az " + name),
			})
		}
	}
	if float64(all)/seconds < sc.threshold(pruneRate) {
		return
	}
	f := draft{}
	f.Netns, f.Severity, f.Confidence, f.FailingNow = p.netns, Warning, High, true
	f.Summary = fmt.Sprintf("receive buffers in %s overflow %s times/s: programs read more slowly than their peers send",
		p.netns.Label, figure.Rate(float64(all)/seconds))
	f.Why = "A socket whose receive buffer is full makes the kernel squeeze what waits in it, and drop segments when that does not help; " +
		"the peer sends them again. " +
		"The program is short of CPU time, or stuck, or its buffer (tcp_rmem, SO_RCVBUF) is too small for many small segments."
	f.Evidence = evidence
	f.RuledOut = []RuledOut{{"time-wait", "TIME_WAIT", notTimeWait}}
	if used, pressure, _, ok := sc.tcpPages(); ok && used < pressure {
		f.RuledOut = append(f.RuledOut, RuledOut{"tcp-mem", "tcp_mem",
			fmt.Sprintf("%s pages in use, pressure begins at %s", figure.Count(used), figure.Count(pressure))})
	}
	f.doubt("which program: `ss -tnp` shows in Recv-Q whose data waits")
	f.Remedies = []RemedyID{ReadFaster}
	f.WillNotHelp = pressureFolklore
	v.findings = append(v.findings, f)
}

// loadAlone says that the host is busy where the stack shows no sign of it.
func (sc *scene) loadAlone(v *verdict) {
	for _, resource := range []string{"cpu", "memory"} {
		psi, known := sc.Host.Pressure[resource]
		if !known || psi.Some < sc.threshold(stallShare) {
			continue
		}
		f := draft{}
		f.Key.Part = resource
		f.Severity, f.Confidence = Info, High
		f.Summary = fmt.Sprintf("tasks wait for %s %s of the time; the TCP stack shows no sign of it", resource, figure.Percent(psi.Some))
		f.Why = "Programs that wait accept and close later: accept queues and CLOSE_WAIT grow first. " +
			strings.ToUpper(notTimeWait[:1]) + notTimeWait[1:] + "."
		f.Evidence = []Evidence{{
			ID: EvidenceID(resource + "-pressure"), Name: resource + " pressure", Value: psi.Some, Limit: new(100.0), Unit: "%",
			Source: "/proc/pressure/" + resource + ", some, over 10 s", Check: "cat /proc/pressure/" + resource,
		}}
		f.Remedies = []RemedyID{ReadFaster}
		f.WillNotHelp = pressureFolklore
		v.findings = append(v.findings, f)
	}
}

var pressureFolklore = []Folklore{
	{"TIME_WAIT tuning", "a time-wait socket takes 256 bytes and no CPU time until its timer ends it"},
	Folklore(setting.BucketsForMemory),
}
