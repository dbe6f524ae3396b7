package diagnose

import (
	"fmt"
	"strings"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// FinTimeout: tcp_fin_timeout is off its default.
const FinTimeout Slug = "fin-timeout"

var finTimeoutRule = Rule{
	Slug:     FinTimeout,
	Title:    "tcp_fin_timeout is off its default, and does not do what it is set for",
	Needs:    "tcp_fin_timeout, the files of sysctl.d",
	Setting:  true,
	Remedies: []RemedyID{FinTimeoutDefault},
	judge:    judgeFinTimeout,
}

func judgeFinTimeout(sc *scene) (v verdict) {
	read := 0
	for _, p := range sc.places {
		seconds, ok := p.Settings.Int(keyFinTimeout)
		if !ok {
			v.unknown = append(v.unknown, p.lacks(LackSettings, "readable sysctl: "+keyFinTimeout))
			continue
		}
		read++
		if seconds != setting.DefaultFinTimeout {
			v.findings = append(v.findings, sc.liveTimeout(p, seconds))
		}
	}
	for _, b := range sc.Host.Boot {
		var seconds int64
		if b.Key != keyFinTimeout {
			continue
		}
		if _, err := fmt.Sscan(b.Value, &seconds); err != nil || seconds == setting.DefaultFinTimeout {
			continue
		}
		f := timeoutFinding(seconds, fmt.Sprintf("%s:%d", b.File, b.Line)+" sets tcp_fin_timeout to")
		f.Key.Part = bootPart(b)
		f.Evidence = []Evidence{{
			ID: "fin-timeout", Name: "tcp_fin_timeout", Value: float64(seconds), Unit: "s",
			Source: fmt.Sprintf("%s:%d, the last word for %s at the next boot", b.File, b.Line, strings.Join(b.Loaders, " and ")),
			Check:  "grep -n tcp_fin_timeout " + Quote(b.File),
		}}
		v.findings = append(v.findings, f)
	}
	if read > 0 {
		v.absent = fmt.Sprintf("tcp_fin_timeout is %d s, its default, wherever it was read (in %d of %s), and no file sets another",
			setting.DefaultFinTimeout, read, figure.Items(len(sc.places), "namespace"))
	}
	return v
}

func (sc *scene) liveTimeout(p *place, seconds int64) draft {
	f := timeoutFinding(seconds, "tcp_fin_timeout is")
	f.Netns = p.netns
	f.where = ", in " + p.netns.Label
	f.Evidence = []Evidence{{
		ID: "fin-timeout", Name: "tcp_fin_timeout", Value: float64(seconds), Unit: "s",
		Source: "/proc/sys, against its default", Check: p.sysctl(keyFinTimeout),
	}}
	if p.SocketsRead {
		f.sockets = p.States[tcp.FinWait2] + p.States[tcp.FinWait2TimeWait]
		f.Evidence = append(f.Evidence,
			Evidence{
				ID: "in-fin-wait2", Name: "in FIN_WAIT2", Value: float64(f.sockets), Unit: "sockets",
				Source: "sock_diag: what the setting governs, once no program has them", Check: p.in("ss -Htan state fin-wait-2 | wc -l"),
			},
			Evidence{
				ID: "in-time-wait", Name: "in TIME_WAIT", Value: float64(p.States[tcp.TimeWait]), Unit: "sockets",
				Source: "sock_diag: what it does not govern", Check: p.in("ss -Htan state time-wait | wc -l"),
			})
	}
	return f
}

func timeoutFinding(seconds int64, subject string) draft {
	f := draft{ties: []tie{{setting: keyFinTimeout, value: seconds}}}
	f.Severity, f.Confidence = Info, High
	lasts := setting.OrphanSeconds(seconds)
	f.Summary = fmt.Sprintf("%s %d s: ", subject, seconds)
	const governs = "The setting limits how long a closed socket without an owner waits in FIN_WAIT2 for the peer to close. " +
		"TIME_WAIT is 60 s by a constant of the kernel, and no setting shortens it."
	twice := fmt.Sprintf("Above 60 the kernel waits for what exceeds 60 s, and then for as long again: 2 × (%d − 60) = %d s. ",
		seconds, lasts)
	f.Why = governs
	switch {
	case seconds < setting.DefaultFinTimeout:
		f.Summary += "it does not shorten TIME_WAIT"
		f.Why += " All that the lower value does is to answer peers that are slow to close with a reset."
	case lasts < seconds:
		f.Severity = Warning
		f.Summary += fmt.Sprintf("orphans in FIN_WAIT2 really get %d s", lasts)
		f.Why = twice + "Peers that take longer to close are reset. " + governs
	case lasts == seconds:
		f.Summary += "orphans stay in FIN_WAIT2 twice as long as by default; TIME_WAIT is unchanged"
	default:
		f.Summary += fmt.Sprintf("orphans in FIN_WAIT2 really stay %d s", lasts)
		f.Why = twice + governs
	}
	f.Remedies = []RemedyID{FinTimeoutDefault}
	f.WillNotHelp = []Folklore{
		Folklore(setting.StillLowerFinTimeout),
		noRecycle,
		noFewerBuckets,
	}
	return f
}
