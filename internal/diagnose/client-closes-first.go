package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ClientClosesFirst: a client opens many short connections and closes them first.
const ClientClosesFirst Slug = "client-closes-first"

var clientClosesFirstRule = Rule{
	Slug:       ClientClosesFirst,
	Title:      "a client opens many short connections and closes them first",
	Needs:      "sockets with their remaining time, listeners or a fan-out, ip_local_port_range, tcp_max_tw_buckets",
	Thresholds: []Threshold{connectorRate, connectorShare, connectorUse},
	Remedies: []RemedyID{
		KeepConnections, PeerClosesFirst, MoreAddresses, BindAddressNoPort, WidenPortRange,
		TimestampsOn, ReuseOn, ReuseDelayDefault, LingerZero,
	},
	judge: judgeClientClosesFirst,
}

var (
	connectorRate = Threshold{
		Name: "client-closes-first.closes-per-second", Default: 20, Unit: "closes/s",
		Reason: "over the last minute; below it TIME_WAIT takes less than 1,200 ports, 4 % of the default range",
	}
	connectorShare = Threshold{
		Name: "client-closes-first.time-wait-percent", Default: 50, Unit: percentUnit,
		Reason: "of the group's sockets: where fewer are in TIME_WAIT, live connections take the ports",
	}
	connectorUse = Threshold{
		Name: "client-closes-first.warning-percent", Default: 30, Unit: percentUnit,
		Reason: "of the ports or of tcp_max_tw_buckets, now or predicted: below it the load may triple before anything is near",
	}
)

func judgeClientClosesFirst(sc *scene) verdict {
	return churning{
		role: tcp.Connector, end: "client",
		perSecond: sc.threshold(connectorRate), share: sc.threshold(connectorShare), report: sc.connectorChurn,
	}.judge(sc)
}

func (sc *scene) connectorChurn(p *place, g *snapshot.Group, v *verdict) draft {
	f := p.about(g)
	c := p.churn(g)
	memory := capacity.ConnectorBytes(c.timeWait)
	cost := figure.Size(memory) + " of memory at most"
	var fill float64
	fullest, accused := "", "" // the limit that is nearest
	if b, ok := p.budgets.Of(g); ok {
		cost += fmt.Sprintf(" and %s of %s source ports", figure.Count(b.Occupied()), figure.Count(b.Ports))
		fill = b.Fill()
		fullest = fmt.Sprintf("the source ports (%s of %s now)", figure.Count(b.Used), figure.Count(b.Ports))
		f.Evidence = append(f.Evidence, portEvidence(p, g, b)...)
	} else {
		f.lower(Low)
		v.unknown = append(v.unknown, p.noBudget())
	}
	if most, ok := p.buckets(); ok {
		if buckets := share(c.settled(), most); buckets > fill || fullest == "" {
			fill, accused = buckets, keyBuckets
			fullest = fmt.Sprintf("tcp_max_tw_buckets (%s of %s now)", figure.Count(c.timeWait), figure.Count(most))
		}
	} else {
		f.lower(Low)
		v.unknown = append(v.unknown, p.lacks(LackSettings, keyBuckets+", to tell how much of it the TIME_WAIT fills"))
	}
	f.Severity, f.of = Info, way(g.Local, g.Remote)+": "
	f.Summary = fmt.Sprintf("the client closes first, %s connections/s over the last minute; its TIME_WAIT harms nothing and costs %s",
		c.closes(), cost)
	f.Remedies = []RemedyID{KeepConnections, PeerClosesFirst}
	if fill >= sc.threshold(connectorUse) {
		f.Severity = Warning
		f.Summary = fmt.Sprintf("the client closes first, %s connections/s over the last minute, and comes to fill %s of %s",
			c.closes(), figure.Percent(fill), fullest)
		f.Remedies = p.portRemedies(g, f.Remedies)
	}
	f.Why = "Whoever sends the first FIN keeps the connection in TIME_WAIT for 60 s, and here that is the client: " +
		"each close keeps a source port from " +
		"further connections to " + g.Remote.String() + ". It costs " + cost + ". " + c.since()
	f.Evidence = append(c.evidence(p, g, memory), f.Evidence...)
	f.RuledOut = sc.acquit(p, g, accused)
	f.doubtOwners(g)
	f.doubtHistory(g)
	f.WillNotHelp = []Folklore{noFinTimeout, noRecycle, noFewerBuckets, noTimestamps, noSyncookies, noRFC1337}
	return f
}
