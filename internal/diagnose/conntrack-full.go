package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

// ConntrackFull: the connection-tracking table is near its limit.
const ConntrackFull Slug = "conntrack-full"

var conntrackFullRule = Rule{
	Slug:       ConntrackFull,
	Title:      "the connection-tracking table is near its limit, or drops connections",
	Needs:      "nf_conntrack_count, nf_conntrack_max and the counters of nf_conntrack read twice; CAP_NET_ADMIN for what the table holds",
	Thresholds: []Threshold{tableWarning, tableCritical},
	CausedBy:   []Slug{ConnectionChurn, ClientClosesFirst},
	Remedies:   []RemedyID{KeepConnections, RaiseTracked, ShorterTrackedTimeWait, NoTrack},
	judge:      judgeConntrackFull,
}

var (
	tableWarning = Threshold{
		Name: "conntrack-full.warning-percent", Default: 75, Unit: percentUnit,
		Reason: "of nf_conntrack_max: a third more connections and packets are dropped",
	}
	tableCritical = Threshold{
		Name: "conntrack-full.critical-percent", Default: 90, Unit: percentUnit,
		Reason: "of nf_conntrack_max: a ninth more connections, an ordinary peak, and packets are dropped",
	}
)

// The remedies of this problem alone.
const (
	// RaiseTracked: a higher net.netfilter.nf_conntrack_max.
	RaiseTracked RemedyID = "raise-conntrack-max"
	// NoTrack: packets that no rule asks about pass untracked.
	NoTrack RemedyID = "no-track"
)

func judgeConntrackFull(sc *scene) (v verdict) {
	most, tracked := -1.0, false
	for _, p := range sc.places {
		c := p.Conntrack
		if c == nil || c.Max <= 0 {
			continue
		}
		tracked = true
		fill := share(float64(c.Count), float64(c.Max))
		drops, _ := c.Counters.Rose("drop")
		early, _ := c.Counters.Rose("early_drop")
		if fill >= sc.threshold(tableWarning) || early > 0 || drops > 0 && fill >= tableDrops {
			v.findings = append(v.findings, sc.tableFull(p, c, fill, drops+early))
		} else if fill > most {
			most = fill
			v.absent = fmt.Sprintf("the fullest table, of %s, tracks %s of %s connections (%s)",
				p.netns.Label, figure.Count(c.Count), figure.Count(c.Max), figure.Percent(fill))
		}
	}
	if !tracked && len(sc.places) > 0 {
		v.absent = "no namespace tracks connections"
	}
	return v
}

// tableDrops is the fill, in percent, below which drops are not those of a full table.
const tableDrops = 50

func (sc *scene) tableFull(p *place, c *snapshot.Conntrack, fill float64, drops uint64) draft {
	f := draft{sockets: int(c.Count)}
	f.Netns, f.Confidence, f.Severity = p.netns, High, Warning
	f.Summary = fmt.Sprintf("connection tracking in %s holds %s of %s entries (%s)",
		p.netns.Label, figure.Count(c.Count), figure.Count(c.Max), figure.Percent(fill))
	if fill >= sc.threshold(tableCritical) {
		f.Severity = Critical
	}
	if drops > 0 {
		f.Severity, f.FailingNow = Critical, true
		f.Summary += fmt.Sprintf("; %s dropped in %.3g s", figure.Items(int(drops), "packet"), float64(sc.WindowMS)/1000)
	}
	f.Why = "Each connection that passes or ends here takes an entry until its time-out. " +
		`When the table is full the kernel drops the packets of new ones: "nf_conntrack: table full, dropping packet".`
	f.Evidence = []Evidence{{
		ID: "tracked", Name: "tracked connections", Value: float64(c.Count), Limit: new(float64(c.Max)), Unit: "entries",
		Source: "nf_conntrack_count of the namespace, nf_conntrack_max of the host",
		Check:  p.sysctl(setting.TrackedCount + " " + setting.TrackedMax),
	}}
	for _, name := range []string{"drop", "early_drop"} {
		if rise, told := c.Counters.Rose(name); told {
			f.Evidence = append(f.Evidence, Evidence{
				ID: EvidenceID(name), Name: name + " rise", Value: float64(rise), Unit: "packets",
				Source: fmt.Sprintf("/proc/net/stat/nf_conntrack, over %.3g s; %s since boot",
					float64(sc.WindowMS)/1000, figure.Count(c.Counters.Total[name])),
				Check: p.in("conntrack -S"),
			})
		}
	}
	f.Remedies = []RemedyID{KeepConnections, RaiseTracked, NoTrack}
	if s := c.Sample; s != nil && s.Entries > 0 {
		closed := estimateOf(s, s.States["time_wait"])
		f.Why += fmt.Sprintf(" %s are in the table's TIME_WAIT, %s established.", closed, estimateOf(s, s.States["established"]))
		f.Evidence = append(f.Evidence, Evidence{
			ID: "in-time-wait", Name: "in the table's TIME_WAIT", Value: closed.share, Limit: new(100.0), Unit: "%",
			Source: fmt.Sprintf("ctnetlink: of the first %s entries", figure.Count(s.Entries)),
			Check:  p.in("conntrack -L -p tcp --state TIME_WAIT -o extended | wc -l"),
		})
		seconds, known := c.TimeoutSeconds["time_wait"]
		if closed.share >= 50 && known && seconds > 60 {
			f.Remedies = []RemedyID{KeepConnections, RaiseTracked, ShorterTrackedTimeWait, NoTrack}
		}
	} else {
		f.doubt("which states fill it: to look into the table needs CAP_NET_ADMIN")
	}
	if n, ok := p.timeWaitSockets(); ok {
		f.RuledOut = append(f.RuledOut, RuledOut{"time-wait", "TIME_WAIT sockets",
			figure.Count(n) + " in this namespace: they are no entries of this table"})
	}
	if rise, told := c.Counters.Rose("insert_failed"); told {
		f.RuledOut = append(f.RuledOut, RuledOut{"insert-failed", "insert_failed",
			figure.Count(rise) + " in this window: two connections that wanted the same entry, not a full table"})
	}
	f.WillNotHelp = trackedFolklore
	return f
}
