package remedy

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/tcp"
)

func moreAddresses(at *site) Remedy {
	r := Remedy{
		Title: "Spread the connections over more addresses",
		Kind:  Address,
		Change: "Let the service listen on further ports or addresses, or give the client further source addresses: source ports are counted " +
			"for each source address, destination address and destination port.",
		Examples: []Example{{"nginx", "split_clients $connection $source { 50% 10.0.0.1; * 10.0.0.9; }  proxy_bind $source;"}},
		Frees:    "as many ports again for each address or port that is added",
		Risk:     "A client that binds its source address must set IP_BIND_ADDRESS_NO_PORT, or it loses what it gains.",
		NotWhen:  "connections can be kept instead",
		Mechanism: "A connection is told by four numbers; a port may serve one connection for each of the other three " +
			"(net/ipv4/inet_hashtables.c).",
		Kernels: "all",
	}
	if at.counted {
		r.Frees = fmt.Sprintf("%s ports, and %s closes/s for ever, for each address or port that is added",
			figure.Count(at.budget.Ports), figure.Rate(float64(at.budget.Ports)/at.budget.HoldSeconds))
	}
	return r
}

func bindAddressNoPort(at *site) Remedy {
	return Remedy{
		Title:    "Bind a source address without a port",
		Kind:     Application,
		Change:   "Where the program binds its source address before it connects, set IP_BIND_ADDRESS_NO_PORT first.",
		Examples: examplesFor(at.owner(), addressBinders),
		Frees:    "ports that bind() takes for all destinations at once: a port serves one connection for each destination again",
		Risk:     "none known",
		NotWhen:  "the program does not bind a source address before it connects: it changes nothing then",
		Mechanism: "bind() with port 0 takes a port when no destination is known yet, so it must be free for all; with the option " +
			"connect() chooses it.",
		Kernels: "4.2 and later",
	}
}

// Port ranges to recommend. Their ends are of different parity, so that connect(),
// which begins with the ports of the low end's parity, and bind(), which begins with
// the others, have as many each. The first leaves the ports below 10240 to services.
var (
	wideRange   = tcp.PortRange{Low: 10240, High: 65535}
	widestRange = tcp.PortRange{Low: 1024, High: 65535}
)

// NodePorts is the range of Kubernetes' NodePort services, by its default
// (kube-apiserver --service-node-port-range).
var NodePorts = tcp.PortRange{Low: 30000, High: 32767}

func widenPortRange(at *site) Remedy {
	const keyRange, keyReserved = setting.LocalPortRange, setting.LocalReservedPorts
	ports, old := at.budgets.Ports()
	wide := wideRange
	if old.Low < wide.Low || old == wide {
		wide = widestRange
	}
	value := fmt.Sprintf("%d %d", wide.Low, wide.High)
	r := Remedy{
		Title:   "Widen the range of source ports to " + wide.String(),
		Kind:    Setting,
		Now:     at.set(keyRange, value),
		Sets:    []Assignment{{keyRange, value}},
		Persist: at.persist(keyRange, value),
		Risk:    setting.Of(keyRange).Risk,
		NotWhen: "the closes per second would fill the wider range as well: it puts the end off, and the search for a port takes longer",
		Mechanism: "connect() chooses from this range, less the reserved ports. The ends are of different parity, so that connect() " +
			"and bind() find as many ports each.",
		Kernels: "all",
	}
	swallowed := swallowedPorts(at, old, wide)
	if len(swallowed) > 0 {
		reserved, _ := at.ns.Settings.ReservedPorts()
		list := reserved.Union(swallowed).String()
		r.Now = at.set(keyReserved, list) + " && " + r.Now
		r.Sets = append([]Assignment{{keyReserved, list}}, r.Sets...)
		if kept := at.persist(keyReserved, list); kept != nil && r.Persist != nil {
			note := fmt.Sprintf("and in %s: %s", kept.File, kept.Line)
			if r.Persist.Note != "" {
				note = r.Persist.Note + "; " + note
			}
			r.Persist.Note = note
		}
		r.Risk = fmt.Sprintf("Listeners in the part that is added: ports %s, which the command reserves. ", swallowed) + r.Risk
	}
	wider := at.budgets.WithRange(wide, swallowed)
	after, _ := wider.Ports()
	r.Frees = fmt.Sprintf("%s ports become %s", figure.Count(ports), figure.Count(after))
	if at.counted {
		b, _ := wider.Of(at.group)
		r.Frees += fmt.Sprintf(", which carry %s closes/s for ever in place of %s",
			figure.Rate(b.Sustainable), figure.Rate(at.budget.Sustainable))
	}
	return r
}

// swallowedPorts are those of services in the part that a wider range adds: of
// listeners, and the node ports where the host runs pods.
func swallowedPorts(at *site, old, wide tcp.PortRange) tcp.PortSet {
	var ports []uint16
	if at.ns == nil {
		return nil
	}
	for _, l := range at.ns.Listeners {
		if p := l.Local.Port; wide.Contains(p) && !old.Contains(p) {
			ports = append(ports, p)
		}
	}
	set := tcp.PortSetOf(ports...)
	if at.runsPods() && !old.Contains(NodePorts.Low) {
		set = set.Union(tcp.PortSet{NodePorts})
	}
	return set
}
