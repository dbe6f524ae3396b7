package diagnose

import (
	"linger/internal/figure"
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
	if _, there := p.Settings["net.ipv4.tcp_tw_recycle"]; !there && len(p.Settings) > 0 {
		add("recycle", "tcp_tw_recycle", "not in this kernel")
	}
	return out
}

// Advice that circulates, each with the mechanism that defeats it.
var (
	noFinTimeout = Folklore{
		"lower tcp_fin_timeout",
		"it limits orphans in FIN_WAIT2; TIME_WAIT is 60 s by a constant of the kernel (TCP_TIMEWAIT_LEN)",
	}
	noRecycle = Folklore{
		"tcp_tw_recycle",
		"it dropped the connections of clients behind one NAT, and kernel 4.12 removed it",
	}
	noFewerBuckets = Folklore{
		"lower tcp_max_tw_buckets",
		"what is over the limit loses its TIME_WAIT unannounced: late segments are answered by resets, or meet a new connection",
	}
	noTimestamps = Folklore{
		"tcp_timestamps=0",
		"without time stamps no port can be taken over early, and old segments are no longer told from new ones",
	}
	noReuseHere = Folklore{
		"tcp_tw_reuse",
		"it serves connect() alone: the TIME_WAIT of a service is not taken over by it",
	}
	noPortsHere = Folklore{
		"a wider ip_local_port_range",
		"accepted connections take no port of it: they share the service's own",
	}
	noBacklog = Folklore{
		"a larger somaxconn or SYN backlog",
		"these queues hold connections that begin, not those that have ended",
	}
	noRFC1337 = Folklore{
		"tcp_rfc1337=1",
		"it keeps TIME_WAIT sockets from being reset, so that there are more of them, and new connections that meet one stall",
	}
	noSyncookies = Folklore{
		"tcp_syncookies, tcp_max_orphans",
		"TIME_WAIT sockets are neither half-open connections nor orphans",
	}
)
