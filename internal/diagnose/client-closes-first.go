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

var clientClosesFirst = Rule{
	Slug:  ClientClosesFirst,
	Title: "a client opens many short connections and closes them first",
	Needs: "sockets with their remaining time, listeners or a fan-out, ip_local_port_range, tcp_max_tw_buckets",
	judge: func(sc *scene) verdict {
		return sc.judgeChurn(tcp.Connector, sc.t.connectorRate, sc.t.connectorShare, sc.connectorChurn)
	},
}

func (sc *scene) connectorChurn(p *place, g *snapshot.Group, c churn, v *verdict) finding {
	f := p.about(g)
	memory := capacity.ConnectorBytes(c.timeWait)
	cost := figure.Size(memory) + " of memory at most"
	var fill float64
	fullest, accused := "", "" // the limit that is nearest
	if b, ok := p.budgets.Of(g); ok {
		cost += fmt.Sprintf(" and %s of %s source ports", figure.Count(b.Held()), figure.Count(b.Ports))
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
		v.unknown = append(v.unknown, Unknown{Netns: p.netns.Label, Needs: keyBuckets + ", to tell how much of it the TIME_WAIT fills"})
	}
	f.Severity = Info
	f.Summary = fmt.Sprintf("%s: the client closes first, %s connections/s over the last minute; its TIME_WAIT harms nothing and costs %s", way(g.Local, g.Remote), c.closes(), cost)
	f.Remedies = []RemedyID{KeepConnections, PeerClosesFirst}
	if fill >= sc.t.connectorUse {
		f.Severity = Warning
		f.Summary = fmt.Sprintf("%s: the client closes first, %s connections/s over the last minute, and comes to fill %s of %s", way(g.Local, g.Remote), c.closes(), figure.Percent(fill), fullest)
		f.Remedies = p.portRemedies(g, f.Remedies)
	}
	f.Why = "Whoever sends the first FIN keeps the connection in TIME_WAIT for 60 s, and here that is the client: each close keeps a source port from " +
		"further connections to " + g.Remote.String() + ". It costs " + cost + ". " + c.since()
	f.Evidence = append(c.evidence(p, g, memory), f.Evidence...)
	f.RuledOut = sc.acquit(p, g, accused)
	f.doubtOwners(g)
	f.doubtHistory(g)
	f.WillNotHelp = []Folklore{noFinTimeout, noRecycle, noFewerBuckets, noTimestamps, noSyncookies, noRFC1337}
	return f
}
