package diagnose

import (
	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// suspects are what people blame for TIME_WAIT troubles; acquit returns those that
// the numbers of the namespace clear. What could not be read clears nobody, nor do
// they clear the accused: the key of the setting that the finding itself blames.
func (sc *scene) acquit(p *place, g *snapshot.Group, accused string) []RuledOut {
	var out []RuledOut
	add := func(id SuspectID, suspect, because string) { out = append(out, RuledOut{id, suspect, because}) }

	if n, ok := p.timeWaitSockets(); ok && accused != keyBuckets {
		most, known := p.buckets()
		rise, told := p.Counters.Rose("TcpExtTCPTimeWaitOverflow")
		if fill := share(float64(n), most); known && fill < sc.threshold(bucketsWarning) && (!told || rise == 0) {
			because := figure.Count(n) + " of " + figure.Count(most) + " (" + figure.Percent(fill) + ")"
			if told {
				because += ", no overflow now"
			}
			add("max-tw-buckets", "tcp_max_tw_buckets", because)
		}
	}
	if g.Role == tcp.Acceptor {
		if rise, told := p.Counters.Rose("TcpExtListenOverflows"); told && rise == 0 {
			add("accept-queue", "accept queue", "ListenOverflows did not rise")
		}
		add("source-ports", "source ports", "the connections that a listener accepts share its own port")
	} else if rise, told := p.Counters.Rose("TcpOutRsts"); told && rise == 0 {
		add("resets", "resets", "OutRsts did not rise: no connection was aborted from here")
	}
	if c := p.Conntrack; c != nil && c.Max > 0 {
		if fill := share(float64(c.Count), float64(c.Max)); fill < sc.threshold(bucketsWarning) {
			add("conntrack", "conntrack", figure.Count(c.Count)+" of "+figure.Count(c.Max)+" ("+figure.Percent(fill)+")")
		}
	}
	if n := g.States[tcp.CloseWait]; n > 0 && float64(n) < sc.threshold(closeWaitSockets) {
		add("close-wait", "CLOSE_WAIT", figure.Count(n)+" sockets: no leak")
	}
	if _, there := p.Settings[keyRecycle]; !there && len(p.Settings) > 0 {
		add("recycle", "tcp_tw_recycle", "not in this kernel")
	}
	return out
}

// Advice that circulates for several problems.
var (
	noFinTimeout      = Folklore(setting.LowerFinTimeout)
	noRecycle         = Folklore(setting.Recycle)
	noFewerBuckets    = Folklore(setting.FewerBuckets)
	noTimestamps      = Folklore(setting.TimestampsOff)
	noReuseHere       = Folklore(setting.ReuseAtService)
	noReuseInFinWait2 = Folklore(setting.ReuseForFinWait2)
	noPortsHere       = Folklore(setting.WiderRangeAtService)
	noBacklog         = Folklore(setting.LongerQueues)
	noRFC1337         = Folklore(setting.RFC1337On)
	noSyncookies      = Folklore(setting.CookiesAndOrphans)
)
