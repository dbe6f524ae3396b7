package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

// NATPortExhaustion: source NAT runs out of ports for a destination.
const NATPortExhaustion Slug = "nat-port-exhaustion"

var natPortExhaustionRule = Rule{
	Slug:       NATPortExhaustion,
	Title:      "the translation of addresses runs out of ports for a destination",
	Needs:      "the counters of nf_conntrack read twice; CAP_NET_ADMIN for what the table holds",
	Thresholds: []Threshold{natFailures},
	Remedies:   []RemedyID{KeepConnections, MoreNATAddresses, WiderNATPorts, ShorterTrackedTimeWait},
	judge:      judgeNATPortExhaustion,
}

var natFailures = Threshold{
	Name: "nat-port-exhaustion.failures-per-second", Default: 1, Unit: "connections/s",
	Reason: "that make no entry while addresses are translated: each is a connect that times out, and there should be none",
}

// The remedies of this problem alone.
const (
	// MoreNATAddresses: source NAT to several addresses.
	MoreNATAddresses RemedyID = "more-nat-addresses"
	// WiderNATPorts: source NAT that may use all ports.
	WiderNATPorts RemedyID = "wider-nat-ports"
)

func judgeNATPortExhaustion(sc *scene) (v verdict) {
	tracked := false
	for _, p := range sc.places {
		c := p.Conntrack
		if c == nil {
			continue
		}
		tracked = true
		failed, told := c.Counters.Rose("insert_failed")
		if !told || sc.WindowMS == 0 {
			if total := c.Counters.Total["insert_failed"]; total > 0 {
				v.unknown = append(v.unknown, p.lacks(LackWindow, fmt.Sprintf(
					"a window (--window above 0): insert_failed is %s since boot, and only two readings tell whether it rises", figure.Count(total))))
			}
			continue
		}
		if float64(failed)*1000/float64(sc.WindowMS) < sc.threshold(natFailures) {
			continue
		}
		switch {
		case c.Sample == nil:
			v.unknown = append(v.unknown, p.lacks(LackTable, "CAP_NET_ADMIN, to see whether addresses are translated: "+
				figure.Count(failed)+" entries could not be made in this window"))
		case len(c.Sample.Translations) > 0:
			v.findings = append(v.findings, sc.natFull(p, c, failed))
		}
	}
	switch {
	case tracked:
		v.absent = "no translated connection failed for want of a port (insert_failed did not rise)"
	case len(sc.places) > 0:
		v.absent = "no namespace tracks connections, so that none translates"
	}
	return v
}

func (sc *scene) natFull(p *place, c *snapshot.Conntrack, failed uint64) draft {
	f := draft{sockets: int(failed)}
	f.Netns, f.Confidence, f.Severity, f.FailingNow = p.netns, Medium, Critical, true
	seconds := float64(sc.WindowMS) / 1000
	t := c.Sample.Translations[0]
	// Of a sample, what the whole table would have.
	entries := float64(t.Entries)
	about := ""
	if !c.Sample.Complete && c.Sample.Entries > 0 {
		entries *= float64(c.Count) / float64(c.Sample.Entries)
		about = "about "
	}
	f.Summary = fmt.Sprintf("%s connections/s find no port in the translation to %s; %s%s ports are taken for %s",
		figure.Rate(float64(failed)/seconds), t.Source, about, figure.Count(entries), t.Destination)
	f.Why = "Source NAT gives each connection a port of the translated address that no other connection to the same destination has. " +
		"Older kernels keep it for 120 s after the end, in the table's own TIME_WAIT; " +
		"newer ones (seen on 6.18) give the port of a closed connection away. " +
		"When none is found the entry clashes, the packet is dropped, and the client sees a connect that times out."
	f.Evidence = []Evidence{
		{
			ID: "insert_failed", Name: "insert_failed rise", Value: float64(failed), Unit: "connections",
			Source: fmt.Sprintf("/proc/net/stat/nf_conntrack, over %.3g s; %s since boot",
				seconds, figure.Count(c.Counters.Total["insert_failed"])),
			Check: p.in("conntrack -S"),
		},
		{
			ID: "busiest-translation", Name: "ports of the busiest translation", Value: entries, Unit: "ports",
			Source: fmt.Sprintf("ctnetlink: %s of %s entries looked at, %s of them in its TIME_WAIT",
				figure.Count(t.Entries), figure.Count(c.Sample.Entries), figure.Count(t.TimeWait)),
			Check: p.in(fmt.Sprintf("conntrack -L -d %s -p tcp --dport %d -q %s | wc -l",
				t.Destination.Addr, t.Destination.Port, t.Source.Addr)),
		},
	}
	if s, known := c.TimeoutSeconds["time_wait"]; known {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "time-wait-timeout", Name: "the table's TIME_WAIT", Value: float64(s), Unit: "s", Source: "nf_conntrack_tcp_timeout_time_wait",
			Check: p.sysctl(setting.TrackedTimeWait),
		})
	}
	f.doubt("that the failures are of this translation: the kernel counts them for the namespace, " +
		"and two packets of one new connection may clash as well")
	f.RuledOut = []RuledOut{{"conntrack", "a full table", fmt.Sprintf("%s of %s entries (%s)",
		figure.Count(c.Count), figure.Count(c.Max), figure.Percent(share(float64(c.Count), float64(c.Max))))}}
	f.Remedies = []RemedyID{KeepConnections, MoreNATAddresses, WiderNATPorts, ShorterTrackedTimeWait}
	f.WillNotHelp = append([]Folklore{
		Folklore(setting.WiderRangeForNAT),
	}, trackedFolklore...)
	return f
}
