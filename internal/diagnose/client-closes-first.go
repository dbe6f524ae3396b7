package diagnose

import (
	"fmt"

	"linger/internal/capacity"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// ClientClosesFirst: a client opens many short connections and closes them first.
const ClientClosesFirst Slug = "client-closes-first"

var clientClosesFirst = Rule{
	Slug:  ClientClosesFirst,
	Title: "a client opens many short connections and closes them first",
	Needs: "sockets with their remaining time, listeners or a fan-out, ip_local_port_range, tcp_max_tw_buckets",
	judge: func(sc *scene) (v verdict) {
		var top busiest
		for i := range sc.places {
			p := &sc.places[i]
			unknown, ok := sc.blind(p)
			v.unknown = append(v.unknown, unknown...)
			if !ok {
				continue
			}
			if v.held == "" {
				v.held = "no client here has sockets in TIME_WAIT"
			}
			found := len(v.findings)
			for j := range p.Groups {
				g := &p.Groups[j]
				if g.Role != tcp.Connector {
					continue
				}
				c := churnOf(g)
				if c.minute >= sc.t.connectorRate && c.share() >= sc.t.connectorShare {
					v.findings = append(v.findings, sc.connectorChurn(p, g, c, &v))
				} else if c.timeWait > 0 {
					top.offer(c, way(g.Local, g.Remote)+" in "+p.netns.Label)
				}
			}
			v.unknown = append(v.unknown, sc.unseen(p, sc.t.connectorRate, sc.t.connectorShare)...)
			if len(v.findings) == found {
				v.unknown = append(v.unknown, sc.survivors(p, sc.t.connectorRate)...)
			}
		}
		if top.at != "" {
			v.held = fmt.Sprintf("the busiest client that closes first, %s, closed %s connections/s over the last minute; %s of its sockets are in TIME_WAIT",
				top.at, top.c.closes(), percent(top.c.share()))
		}
		return v
	},
}

func (sc *scene) connectorChurn(p *place, g *snapshot.Group, c churn, v *verdict) finding {
	f := p.about(g)
	memory := capacity.ConnectorBytes(c.timeWait)
	cost := Size(memory) + " of memory at most"
	ports := ""
	var fill float64
	if b, ok := p.budgets.Of(g); ok {
		ports = fmt.Sprintf("%s of %s source ports", Count(b.Held()), Count(b.Ports))
		fill = b.Fill()
		cost += " and " + ports
		f.Evidence = append(f.Evidence, portEvidence(p, g, b)...)
	} else {
		f.lower(Low)
		v.unknown = append(v.unknown, p.noBudget())
	}
	if most, ok := p.buckets(); ok {
		fill = max(fill, share(c.settled(), most))
	} else {
		f.lower(Low)
		v.unknown = append(v.unknown, Unknown{Netns: p.netns.Label, Needs: keyBuckets + ", to tell how much of it the TIME_WAIT fills"})
	}
	f.Severity = Info
	f.Summary = fmt.Sprintf("%s: the client closes first, %s connections/s; its TIME_WAIT harms nothing and costs %s", way(g.Local, g.Remote), c.closes(), cost)
	f.Remedies = []RemedyID{KeepConnections, PeerClosesFirst}
	if fill >= sc.t.connectorUse {
		f.Severity = Warning
		f.Summary = fmt.Sprintf("%s: the client closes first, %s connections/s, and fills %s of what its TIME_WAIT counts against", way(g.Local, g.Remote), c.closes(), percent(fill))
		if ports != "" {
			f.Summary += " (" + ports + ")"
		}
		f.Remedies = p.portRemedies(g, f.Remedies)
	}
	f.Why = "Whoever sends the first FIN keeps the connection in TIME_WAIT for 60 s, and here that is the client: each close keeps a source port from " +
		"further connections to " + g.Remote.String() + ". It costs " + cost + ". " + c.since()
	f.Evidence = append(c.evidence(p, g, memory), f.Evidence...)
	f.RuledOut = sc.acquit(p, g)
	f.doubtOwners(g)
	f.doubtHistory(g)
	f.WillNotHelp = []Folklore{noFinTimeout, noRecycle, noFewerBuckets, noTimestamps, noSyncookies, noRFC1337}
	return f
}

// noBudget says what is missing to account for source ports.
func (p *place) noBudget() Unknown {
	return Unknown{Netns: p.netns.Label, Needs: fmt.Sprintf("readable sysctls: %v", p.budgets.Missing)}
}
