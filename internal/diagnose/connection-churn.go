package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ConnectionChurn: a service here closes many connections a second, and first.
const ConnectionChurn Slug = "connection-churn"

var connectionChurnRule = Rule{
	Slug:       ConnectionChurn,
	Title:      "a service closes its connections first, many a second",
	Needs:      "sockets with their remaining time, listeners, tcp_max_tw_buckets",
	Thresholds: []Threshold{acceptorRate, acceptorShare, acceptorUse},
	Remedies:   []RemedyID{KeepAlive, PeerClosesFirst, RaiseBuckets},
	judge:      judgeConnectionChurn,
}

var (
	acceptorRate = Threshold{
		Name: "connection-churn.closes-per-second", Default: 20, Unit: "closes/s",
		Reason: "over the last minute; below it TIME_WAIT stays under 1,200 sockets, which is 0.3 MB",
	}
	acceptorShare = Threshold{
		Name: "connection-churn.time-wait-percent", Default: 50, Unit: percentUnit,
		Reason: "of the group's sockets: where fewer are in TIME_WAIT, connections live longer than their remains and are not churn",
	}
	acceptorUse = Threshold{
		Name: "connection-churn.warning-percent", Default: 30, Unit: percentUnit,
		Reason: "of tcp_max_tw_buckets, now or predicted: below it the load may triple before anything is near",
	}
)

func judgeConnectionChurn(sc *scene) verdict {
	return churning{
		role: tcp.Acceptor, end: "service",
		perSecond: sc.threshold(acceptorRate), share: sc.threshold(acceptorShare), report: sc.acceptorChurn,
	}.judge(sc)
}

func (sc *scene) acceptorChurn(p *place, g *snapshot.Group, v *verdict) draft {
	f := p.about(g)
	c := p.churn(g)
	memory := capacity.AcceptorBytes(c.timeWait)
	f.Severity = Info
	accused := ""
	cost := figure.Size(memory) + " of memory and no port"
	if most, ok := p.buckets(); !ok {
		f.lower(Low)
		v.unknown = append(v.unknown, p.lacks(LackSettings, keyBuckets+", to tell how much of it the TIME_WAIT fills"))
	} else if fill := share(c.settled(), most); fill >= sc.threshold(acceptorUse) {
		f.Severity, accused = Warning, keyBuckets
		f.Summary = fmt.Sprintf("%s closes first, %s connections/s over the last minute: its TIME_WAIT fills %s of tcp_max_tw_buckets",
			g.Local, c.closes(), figure.Percent(fill))
	}
	if f.Severity == Info {
		f.Summary = fmt.Sprintf("%s closes first, %s connections/s over the last minute: %s sockets in TIME_WAIT, which harm nothing and cost %s",
			g.Local, c.closes(), figure.Count(c.timeWait), cost)
	}
	f.Why = "Whoever sends the first FIN keeps the connection in TIME_WAIT for 60 s, and here that is the service. " +
		"Its connections share one port, so that this takes memory and places of tcp_max_tw_buckets: " + cost + ". " + c.since()
	f.Evidence = c.evidence(p, g, memory)
	if len(g.Clients) > 0 {
		top := g.Clients[0]
		f.Evidence = append(f.Evidence, Evidence{
			ID: "busiest-client", Name: "from " + top.Addr.String(),
			Value: float64(top.Sockets), Limit: new(float64(c.total)), Unit: "sockets", Source: "sock_diag: the busiest client",
			Check: p.in("ss -Htan" + filter(g) + " dst " + Quote(ssAddress(tcp.Endpoint{Addr: top.Addr})) + " | wc -l"),
		})
	}
	f.RuledOut = sc.acquit(p, g, accused)
	f.doubtHistory(g)
	f.Remedies = []RemedyID{KeepAlive, PeerClosesFirst}
	if f.Severity == Warning {
		f.Remedies = append(f.Remedies, RaiseBuckets)
	}
	f.WillNotHelp = []Folklore{noFinTimeout, noReuseHere, noFewerBuckets, noRecycle, noPortsHere, noBacklog, noRFC1337}
	return f
}
