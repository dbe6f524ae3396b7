package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// VanishedConnections: established connections end without a FIN, or lose their peer.
const VanishedConnections Slug = "vanished-connections"

const (
	estabResets  = "TcpEstabResets"
	keyKeepalive = setting.KeepaliveTime
)

// aborts are the counters that say why this side gave a connection up
// (net/ipv4/proc.c; FIN is never sent).
var aborts = []struct {
	counter, because string
	remedy           RemedyID
}{
	{"TcpExtTCPAbortOnData", "a program here closes with SO_LINGER and a time-out of zero, or got data after its close", CloseWithFIN},
	{"TcpExtTCPAbortOnLinger", "a program here bounds FIN_WAIT2 by TCP_LINGER2", CloseWithFIN},
	{"TcpExtTCPAbortOnClose", "a program here closes with data unread", ReadToEnd},
	{"TcpExtTCPAbortOnTimeout", "the peer no longer answered, and the retries are used up", ProbeIdle},
	{abortOnMemory, "the kernel had no room for an orphan", ReachPeer},
}

var vanishedConnectionsRule = Rule{
	Slug:       VanishedConnections,
	Title:      "established connections end by resets, or their peer has gone without a word",
	Needs:      "EstabResets and opens read twice; sockets",
	Thresholds: []Threshold{resetRate, resetShare, silentPeers},
	Remedies:   []RemedyID{IdleBelowPeer, CloseWithFIN, ReadToEnd, ProbeIdle, LongerConntrack, ReachPeer},
	judge:      judgeVanishedConnections,
}

var (
	resetRate = Threshold{
		Name: "vanished-connections.resets-per-second", Default: 5, Unit: "resets/s",
		Reason: "of established connections: below it they are the accidents of any network",
	}
	resetShare = Threshold{
		Name: "vanished-connections.resets-percent", Default: 5, Unit: percentUnit,
		Reason: "of the connections opened meanwhile: on a busy host five a second may be a handful of impatient clients",
	}
	silentPeers = Threshold{
		Name: "vanished-connections.silent-peers", Default: 20, Unit: "sockets",
		Reason: "of one group that are established and unanswered: a few are laptops that were closed",
	}
)

// The remedies of this problem alone.
const (
	// CloseWithFIN: end connections by a FIN in place of a reset.
	CloseWithFIN RemedyID = "close-with-fin"
	// ReadToEnd: read all that came before the close.
	ReadToEnd RemedyID = "read-to-end"
	// ProbeIdle: keep-alive probes sooner than a middlebox forgets.
	ProbeIdle RemedyID = "probe-idle"
	// IdleBelowPeer: give idle connections up before the peer does.
	IdleBelowPeer RemedyID = "idle-below-peer"
)

func judgeVanishedConnections(sc *scene) (v verdict) {
	at, most := "", -1.0
	var received uint64 // the most that one namespace was told of
	var few []*place    // with too few resets for a finding of their own
	for _, p := range sc.places {
		resets, told := p.Counters.Rose(estabResets)
		if told && sc.WindowMS > 0 {
			perSecond, of := float64(resets)*1000/float64(sc.WindowMS), p.opens()
			switch {
			case perSecond >= sc.threshold(resetRate) && (of == 0 || share(float64(resets), of) >= sc.threshold(resetShare)):
				v.findings = append(v.findings, sc.resets(p, resets))
				received = max(received, resets-min(resets, p.aborted()))
			case perSecond > most:
				most = perSecond
				at = fmt.Sprintf("the most resets of established connections are %s/s, of %s opens in %.3g s (in %s)",
					figure.Rate(perSecond), figure.Count(of), float64(sc.WindowMS)/1000, p.netns.Label)
				few = append(few, p)
			default:
				few = append(few, p)
			}
		} else if total := p.Counters.Total[estabResets]; total > 0 && sc.WindowMS == 0 {
			v.unknown = append(v.unknown, p.lacks(LackWindow, fmt.Sprintf(
				"a window (--window above 0): EstabResets is %s since boot, and only two readings tell whether it rises", figure.Count(total))))
		}
		for j := range p.Groups {
			if g := &p.Groups[j]; float64(g.Unanswered[tcp.Established]) >= sc.threshold(silentPeers) {
				v.findings = append(v.findings, sc.silent(p, g))
			}
		}
	}
	for _, p := range few {
		if own := p.aborted(); received > 0 && 2*own >= received {
			v.findings = append(v.findings, sc.aborter(p))
		}
	}
	v.absent = at
	return v
}

// aborted is how many connections this side gave up in the window.
func (p *place) aborted() (own uint64) {
	for _, a := range aborts {
		rise, _ := p.Counters.Rose(a.counter)
		own += rise
	}
	return own
}

// aborter is a finding on a namespace that gives up as many connections as another is
// told of, be they few of its own.
func (sc *scene) aborter(p *place) draft {
	resets, _ := p.Counters.Rose(estabResets)
	f := sc.resets(p, resets)
	f.lower(Medium)
	f.doubt("that these are the resets of the other namespace: they are as many, and are counted without their addresses")
	return f
}

// opens is how many connections the namespace opened or accepted in the window.
func (p *place) opens() float64 {
	active, _ := p.Counters.Rose("TcpActiveOpens")
	passive, _ := p.Counters.Rose("TcpPassiveOpens")
	return float64(active + passive)
}

func (sc *scene) resets(p *place, resets uint64) draft {
	f := draft{}
	f.Netns, f.Severity, f.Confidence, f.FailingNow = p.netns, Warning, High, true
	seconds := float64(sc.WindowMS) / 1000
	var largest uint64
	own, cause := p.aborted(), ""
	f.Evidence = []Evidence{{
		ID: "resets", Name: "established connections reset", Value: float64(resets), Limit: new(p.opens()), Unit: "connections",
		Source: fmt.Sprintf("/proc/net/snmp EstabResets over %.3g s, of the connections opened and accepted meanwhile", seconds),
		Check:  p.in("nstat -az TcpEstabResets TcpActiveOpens TcpPassiveOpens"),
	}}
	for _, a := range aborts {
		rise, _ := p.Counters.Rose(a.counter)
		if rise == 0 {
			continue
		}
		if rise > largest {
			largest, cause = rise, a.because
		}
		f.Evidence = append(f.Evidence, Evidence{
			ID: EvidenceID(a.counter), Name: a.counter[len("TcpExt"):] + " rise", Value: float64(rise), Unit: "connections",
			Source: "/proc/net/netstat: " + a.because, Check: p.in("nstat -az " + a.counter),
		})
		f.Remedies = append(f.Remedies, a.remedy)
	}
	received := resets - min(resets, own)
	// Who aborts comes before who is told of it.
	f.sockets = int(own)
	if 2*own >= resets {
		f.Summary = fmt.Sprintf("%s established connections/s are aborted from here: %s", figure.Rate(float64(resets)/seconds), cause)
		f.Why = "A reset ends the connection at once: there is no FIN, no TIME_WAIT on either side, " +
			"what was not yet sent is thrown away, and the peer's next read fails with ECONNRESET."
	} else {
		f.Summary = fmt.Sprintf("peers reset %s established connections/s of this namespace", figure.Rate(float64(received)/seconds))
		f.Why = "EstabResets counts the resets of either direction; " +
			"what this side's own counters of aborts do not explain came from a peer, or from a middlebox that speaks for it."
		if p.Traced == nil {
			f.lower(Medium)
			f.doubt("which peers: only tracing sees each reset (`linger --trace 10s`)")
		}
		f.Remedies = append([]RemedyID{IdleBelowPeer}, f.Remedies...)
	}
	sc.seeResets(p, &f, 2*own >= resets)
	if rise, told := p.Counters.Rose("TcpExtTCPAbortOnTimeout"); told && rise == 0 {
		f.RuledOut = append(f.RuledOut, RuledOut{"silent-peers", "silent peers",
			"TCPAbortOnTimeout did not rise: no connection ended for want of an answer"})
	}
	if rise, told := p.Counters.Rose("TcpAttemptFails"); told {
		f.RuledOut = append(f.RuledOut, RuledOut{"refused-connects", "refused connects",
			figure.Items(int(rise), "connect") + " failed (AttemptFails): they are not among these, which were established"})
	}
	f.Remedies = distinct(f.Remedies)
	f.WillNotHelp = []Folklore{
		{"TIME_WAIT tuning", "a connection that is reset never reaches TIME_WAIT"},
		{"SO_LINGER with zero against TIME_WAIT", "it is what makes such resets, and loses data"},
	}
	return f
}

// seeResets adds who drops and who resets connections, where that was traced; here is whether it is
// mostly this side.
func (sc *scene) seeResets(p *place, f *draft, here bool) {
	if p.Traced == nil {
		return
	}
	seconds := float64(sc.TracedMS) / 1000
	over := fmt.Sprintf("traced for %.3g s", seconds)
	f.Evidence = append(f.Evidence, Evidence{
		ID: "aborted-here", Name: "dropped here without a FIN",
		Value: float64(p.Traced.AbortedHere), Limit: new(float64(p.Traced.Ended())), Unit: "connections",
		Source: over + ": established connections that this side ended, of all that ended" + inReasons(p.Traced.Resets.Sent),
		Check:  "linger trace --events --ended-by aborted-here",
	}, Evidence{
		ID: "reset-there", Name: "reset by the peer",
		Value: float64(p.Traced.ResetThere), Limit: new(float64(p.Traced.Ended())), Unit: "connections",
		Source: over + ": established connections that a reset ended", Check: "linger trace --events --ended-by reset-there",
	})
	// Where both ends are here, that one is to be named which the summary is about.
	ofSide := func(g *snapshot.TracedGroup) uint64 {
		if here {
			return g.AbortedHere
		}
		return g.ResetThere + g.TimedOut
	}
	var most *snapshot.TracedGroup
	for i := range p.TracedGroups {
		g := &p.TracedGroups[i]
		if most == nil || cmp.Or(cmp.Compare(ofSide(g), ofSide(most)), cmp.Compare(vanished(g), vanished(most))) > 0 {
			most = g
		}
	}
	if most == nil || vanished(most) == 0 {
		return
	}
	service := "to " + most.Remote.String()
	if most.Role == tcp.Acceptor {
		service = "of " + most.Local.String()
	}
	f.Why += fmt.Sprintf(" Most were seen with connections %s: %s dropped here and %s reset by the peer in %.3g s.",
		service, figure.Count(most.AbortedHere), figure.Count(most.ResetThere), seconds)
	if most.Process != "" {
		f.Owners = []snapshot.Owner{{
			Process: most.Process, PID: most.PID, Container: most.Container, Pod: most.Pod,
			How: snapshot.Seen, Traced: most.Sums(),
		}}
	}
}

// vanished are the connections that ended without a FIN.
func vanished(t *snapshot.TracedGroup) uint64 { return t.AbortedHere + t.ResetThere + t.TimedOut }

// inReasons lists why resets were sent, in the kernel's words.
func inReasons(sent map[string]uint64) string {
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(sent)) {
		words = append(words, fmt.Sprintf("%s %s", figure.Count(sent[reason]), reason))
	}
	if len(words) == 0 {
		return ""
	}
	return "; resets sent: " + strings.Join(words, ", ")
}

func distinct(ids []RemedyID) []RemedyID {
	var out []RemedyID
	seen := map[RemedyID]bool{}
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// silent is a finding on connections that are established for this side alone.
func (sc *scene) silent(p *place, g *snapshot.Group) draft {
	f := p.about(g)
	n := g.Unanswered[tcp.Established]
	f.sockets, f.Severity, f.FailingNow = n, Warning, true
	f.Summary = fmt.Sprintf("%s established connections of %s get no answer: the peer, or the way to it, has forgotten them",
		figure.Count(n), who(g))
	f.Why = "Each has sent the same segment, or a keep-alive probe, three times or more. " +
		"A firewall or NAT that has dropped its entry throws the segments away; a host that has gone cannot reset them. " +
		"The program waits until tcp_retries2 are used up, about a quarter of an hour."
	f.Evidence = []Evidence{{
		ID: "silent", Name: "without an answer", Value: float64(n), Limit: new(float64(g.States[tcp.Established])), Unit: "sockets",
		Source: "sock_diag: idiag_retrans of three or more, of the group's established sockets",
		Check:  p.in("ss -Htnoi state established" + filter(g)),
	}}
	f.Remedies = []RemedyID{ProbeIdle, IdleBelowPeer, ReachPeer}
	firewall := sc.forgetter(p)
	if firewall != nil {
		p.blame(firewall, &f)
	}
	if g.Peer == nil && (firewall == nil || firewall == p) {
		f.doubt("who forgot them: the peer's namespace was not read, and a middlebox does not show")
	}
	f.WillNotHelp = []Folklore{
		Folklore(setting.KeepaliveAlone),
		{"TIME_WAIT tuning", "these connections are not closed"},
	}
	return f
}

// forgetter is the namespace whose connection tracking may have forgotten connections
// of p: the one that meets the most segments of connections that it does not know, or
// else p itself, where it tracks; nil where none does.
func (sc *scene) forgetter(p *place) *place {
	var most *place
	var met [2]uint64
	if p.Conntrack != nil {
		most, met = p, p.strangers(p)
	}
	for _, q := range sc.places {
		if q.netns == p.netns || q.Conntrack == nil {
			continue
		}
		if n := p.strangers(q); n[0] > met[0] || n[0] == met[0] && n[1] > met[1] {
			most, met = q, n
		}
	}
	return most
}

// strangers are the segments of connections unknown to q's tracking that came in the
// window; and, where it forgets before a keep-alive probe of p would remind it, those
// since boot: what is sent again comes ever more seldom, at last every two minutes.
func (p *place) strangers(q *place) (met [2]uint64) {
	met[0], _ = q.Conntrack.Counters.Rose("invalid")
	if p.outlives(q) {
		met[1] = q.Conntrack.Counters.Total["invalid"]
	}
	return met
}

// outlives tells whether a connection of p may be idle for longer than q tracks it.
func (p *place) outlives(q *place) bool {
	idle, known := p.Settings.Int(keyKeepalive)
	keeps, told := q.Conntrack.TimeoutSeconds["established"]
	return known && told && keeps < idle
}

// blame adds what the connection tracking of a namespace has to do with connections of
// p that get no answer.
func (p *place) blame(firewall *place, f *draft) {
	c, here := firewall.Conntrack, "here"
	if firewall != p {
		here = "in " + firewall.netns.Label
	}
	if idle, known := p.Settings.Int(keyKeepalive); known {
		if keeps, ok := c.TimeoutSeconds["established"]; ok {
			f.Evidence = append(f.Evidence, Evidence{
				ID: "conntrack-keeps", Name: "conntrack keeps established", Value: float64(keeps), Limit: new(float64(idle)), Unit: "s",
				Source: "nf_conntrack_tcp_timeout_established " + here + ", against " + keyKeepalive + " of these sockets",
				Check:  firewall.sysctl(setting.TrackedEstablished) + "; " + p.sysctl(keyKeepalive),
			})
			if keeps < idle {
				f.Why += fmt.Sprintf(" Connection tracking %s forgets an idle connection after %s s; "+
					"keep-alive, where a program asked for it, first probes after %s s.", here, figure.Count(keeps), figure.Count(idle))
			}
		}
	}
	rise, told := c.Counters.Rose("invalid")
	if total := c.Counters.Total["invalid"]; told && total > 0 {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "conntrack-invalid", Name: "conntrack invalid rise", Value: float64(rise), Unit: "packets",
			Source: fmt.Sprintf("/proc/net/stat/nf_conntrack %s: segments that belong to no connection that it knows; %s since boot",
				here, figure.Count(total)),
			Check: firewall.in("conntrack -S"),
		})
	}
	switch {
	case !p.outlives(firewall):
	case firewall == p:
		f.Remedies = []RemedyID{ProbeIdle, LongerConntrack, IdleBelowPeer, ReachPeer}
	default:
		// A command of this finding would run in the sockets' namespace, not there.
		f.Why += " A longer nf_conntrack_tcp_timeout_established there is another cure."
	}
	if firewall != p {
		f.doubt("that their segments pass " + firewall.netns.Label + ": its invalid segments are counted without their addresses")
	}
}
