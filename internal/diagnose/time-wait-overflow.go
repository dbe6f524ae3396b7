package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TimeWaitOverflow: tcp_max_tw_buckets is near or met.
const TimeWaitOverflow Slug = "time-wait-overflow"

const overflowCounter = "TcpExtTCPTimeWaitOverflow"

var timeWaitOverflowRule = Rule{
	Slug:       TimeWaitOverflow,
	Title:      "the limit of time-wait sockets is near or met",
	Needs:      "tcp_max_tw_buckets, /proc/net/sockstat, TCPTimeWaitOverflow read twice",
	Thresholds: []Threshold{bucketsWarning, bucketsCritical},
	CausedBy:   []Slug{ConnectionChurn, ClientClosesFirst},
	Remedies:   []RemedyID{KeepAlive, KeepConnections, PeerClosesFirst, RaiseBuckets},
	judge:      judgeTimeWaitOverflow,
}

var (
	bucketsWarning = Threshold{
		Name: "time-wait-overflow.warning-percent", Default: 75, Unit: percentUnit,
		Reason: "of tcp_max_tw_buckets: a third more closes and the limit is met",
	}
	bucketsCritical = Threshold{
		Name: "time-wait-overflow.critical-percent", Default: 90, Unit: percentUnit,
		Reason: "of tcp_max_tw_buckets: a ninth more closes, an ordinary peak, and sockets are dropped without their TIME_WAIT",
	}
)

func judgeTimeWaitOverflow(sc *scene) (v verdict) {
	most, at := -1.0, ""
	for _, b := range sc.buckets(&v) {
		fill := b.fill()
		rising := b.told && b.rise > 0
		if rising || fill >= sc.threshold(bucketsWarning) {
			v.findings = append(v.findings, sc.overflow(b))
			continue
		}
		if !b.told && b.total > 0 {
			v.unknown = append(v.unknown, b.lacks(LackWindow, fmt.Sprintf("a window (--window above 0): "+
				"TCPTimeWaitOverflow is %s since boot, and only two readings tell whether it rises", figure.Count(b.total))))
		}
		if fill > most {
			most, at = fill, fmt.Sprintf("the fullest, %s, has %s of %s time-wait sockets (%s)",
				b.label(), figure.Count(b.n), figure.Count(b.most), figure.Percent(fill))
			if b.told {
				at += ", TCPTimeWaitOverflow did not rise"
			}
		}
	}
	v.absent = at
	return v
}

// bucketUse is how full tcp_max_tw_buckets is, in one namespace or, through kernel
// 4.10, which counts and limits them together, in all.
type bucketUse struct {
	places []*place // those that share the limit
	netns  Netns
	n      int
	most   float64
	rise   uint64
	total  uint64
	told   bool // rise is known
}

func (b *bucketUse) fill() float64 {
	if b.most == 0 {
		return 100 // a limit of 0 switches TIME_WAIT off
	}
	return share(float64(b.n), b.most)
}

func (b *bucketUse) label() string {
	if b.netns == (Netns{}) {
		return "the whole host"
	}
	return b.netns.Label
}

// lacks is what the rule needs of those that share the limit and does not have.
func (b *bucketUse) lacks(what Lack, needs string) Unknown {
	if b.netns == (Netns{}) {
		return Unknown{Lack: what, Needs: needs}
	}
	return b.places[0].lacks(what, needs)
}

// buckets counts time-wait sockets against each limit that there is.
func (sc *scene) buckets(v *verdict) []*bucketUse {
	var uses []*bucketUse
	shared, hostWide := sc.Host.Settings.Int(keyBuckets)
	together := &bucketUse{most: float64(shared), told: true}
	for _, p := range sc.places {
		n, counted := p.timeWaitSockets()
		most, own := p.Settings.Int(keyBuckets)
		use := &bucketUse{netns: p.netns, most: float64(most), told: true}
		switch {
		case !own && hostWide:
			use = together
		case !own:
			v.unknown = append(v.unknown, p.lacks(LackSettings, "readable sysctl: "+keyBuckets))
			continue
		}
		if !counted {
			v.unknown = append(v.unknown, p.lacks(LackCount, "the number of time-wait sockets: "+sc.gap(p.netns.Label)))
			continue
		}
		if len(use.places) == 0 {
			uses = append(uses, use)
		}
		rise, told := p.Counters.Rose(overflowCounter)
		use.places = append(use.places, p)
		use.n += n
		use.rise += rise
		use.told = use.told && told
		use.total += p.Counters.Total[overflowCounter]
	}
	return uses
}

func (sc *scene) overflow(b *bucketUse) draft {
	p := b.places[0]
	f := draft{sockets: b.n}
	f.Netns, f.Confidence, f.Severity = b.netns, High, Warning
	fill := b.fill()
	in := " in " + b.label()
	if b.netns != (Netns{}) {
		f.where, in = in, ""
	}
	f.Summary = fmt.Sprintf("%s of %s time-wait sockets (%s of tcp_max_tw_buckets)",
		figure.Count(b.n), figure.Count(b.most), figure.Percent(fill)) + in
	if fill >= sc.threshold(bucketsCritical) && b.most > 0 {
		f.Severity = Critical
	}
	if b.rise > 0 {
		f.Severity, f.FailingNow = Critical, true
		f.Summary = fmt.Sprintf("%s lost their TIME_WAIT in %.3g s: %s of %s time-wait sockets",
			figure.Items(int(b.rise), "closed connection"), float64(sc.WindowMS)/1000, figure.Count(b.n), figure.Count(b.most)) + in
	}
	f.Why = "A connection that should enter TIME_WAIT when tcp_max_tw_buckets are there is dropped at once, and no log line " +
		"says so: late segments " +
		"are answered by resets, and a peer that has not closed yet may get ECONNRESET."
	if b.most == 0 {
		if b.rise == 0 {
			f.where = ""
			f.Summary = "tcp_max_tw_buckets is 0 in " + b.label() + ": connections that close first are dropped without their TIME_WAIT"
		}
		f.Why += " A limit of 0 switches TIME_WAIT off altogether."
	} else if b.rise > 0 && fill < sc.threshold(bucketsWarning) {
		f.Why += " The limit is far: the kernel could not allocate the sockets, or a short peak met it."
	}
	if !b.told {
		f.doubt("whether the limit is being hit: TCPTimeWaitOverflow needs two readings (--window above 0)")
	}

	f.Evidence = []Evidence{{
		ID: "time-wait-sockets", Name: "time-wait sockets", Value: float64(b.n), Limit: new(b.most), Unit: "sockets",
		Source: "/proc/net/sockstat tw, " + keyBuckets, Check: p.in("grep TCP: /proc/net/sockstat") + "; " + p.sysctl(keyBuckets),
	}}
	if _, known := p.Counters.Total[overflowCounter]; known {
		overflows := Evidence{
			ID: "overflow-total", Name: "TCPTimeWaitOverflow, total", Value: float64(b.total), Unit: "sockets",
			Source: "/proc/net/netstat, since boot", Check: p.in("nstat -az " + overflowCounter),
		}
		if b.told {
			overflows.ID, overflows.Name, overflows.Value = overflowCounter, "TCPTimeWaitOverflow rise", float64(b.rise)
			overflows.Source = fmt.Sprintf("/proc/net/netstat, over %.3g s; %s since boot", float64(sc.WindowMS)/1000, figure.Count(b.total))
		}
		f.Evidence = append(f.Evidence, overflows)
	}
	f.Evidence = append(f.Evidence, Evidence{
		ID: "kernel-memory", Name: "kernel memory", Value: float64(capacity.AcceptorBytes(b.n)), Unit: "bytes",
		Source: "slab tw_sock_TCP: 256 bytes each (root reads it)", Check: "grep tw_sock_TCP /proc/slabinfo",
	})

	f.Remedies = []RemedyID{KeepAlive, KeepConnections, RaiseBuckets}
	if p, g := b.largest(); g != nil {
		n := g.States.TimeWaitSockets()
		f.Evidence = append(f.Evidence, Evidence{
			ID: "largest-group", Name: "largest group", Value: float64(n), Limit: new(float64(b.n)), Unit: "sockets",
			Source: "sock_diag: " + who(g), Check: p.countInState(g, "time-wait"),
		})
		f.Owners, f.Peer = g.Owners, g.Peer
		f.Remedies = []RemedyID{KeepConnections, PeerClosesFirst, RaiseBuckets}
		if g.Role == tcp.Acceptor {
			f.Remedies = []RemedyID{KeepAlive, PeerClosesFirst, RaiseBuckets}
		}
		if 2*n >= b.n {
			f.Why += fmt.Sprintf(" %s has %s of them.", who(g), figure.Percent(share(float64(n), float64(b.n))))
			f.ties = p.about(g).ties
		}
	}
	if n, pages := sc.Host.Orphans, sc.Host.TCPMemoryPages; n != nil && pages != nil {
		f.RuledOut = append(f.RuledOut, RuledOut{"tcp-mem", "tcp_mem, tcp_max_orphans",
			fmt.Sprintf("time-wait sockets count against neither (%s orphans, %s pages)", figure.Count(*n), figure.Count(*pages))})
	}
	f.WillNotHelp = []Folklore{noFewerBuckets, noFinTimeout, noReuseHere, noRecycle, noRFC1337, noSyncookies}
	return f
}

// largest is the group with the most time-wait sockets and its place, nil where
// there are no groups.
func (b *bucketUse) largest() (at *place, largest *snapshot.Group) {
	for _, p := range b.places {
		for i := range p.Groups {
			g := &p.Groups[i]
			if largest == nil || g.States.TimeWaitSockets() > largest.States.TimeWaitSockets() {
				at, largest = p, g
			}
		}
	}
	return at, largest
}
