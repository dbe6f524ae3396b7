package diagnose

import (
	"fmt"

	"linger/internal/figure"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

// TWRecycle: tcp_tw_recycle is on, or a file would set it.
const TWRecycle Slug = "tw-recycle"

const keyRecycle = setting.TWRecycle

var twRecycleRule = Rule{
	Slug:     TWRecycle,
	Title:    "tcp_tw_recycle is on, or a file would set it",
	Needs:    "sysctls and the files of sysctl.d",
	Setting:  true,
	Remedies: []RemedyID{RecycleOff},
	judge:    judgeTWRecycle,
}

// RecycleOff: net.ipv4.tcp_tw_recycle=0, or its line taken out.
const RecycleOff RemedyID = "recycle-off"

func judgeTWRecycle(sc *scene) (v verdict) {
	exists := false
	for _, p := range sc.places {
		value, there := p.Settings.Int(keyRecycle)
		exists = exists || there
		if value != 0 {
			v.findings = append(v.findings, sc.recycleOn(p, value))
		}
	}
	for _, b := range sc.Host.Boot {
		if b.Key == keyRecycle && (b.Value != "0" || !exists) {
			v.findings = append(v.findings, recycleInFile(b, exists))
		}
	}
	switch {
	case len(v.findings) > 0:
	case exists:
		v.absent = "tcp_tw_recycle is 0, and no file sets it"
	case len(sc.places) > 0 && len(sc.places[0].Settings) > 0:
		v.absent = "this kernel has no tcp_tw_recycle, and no file sets it"
	}
	return v
}

const recycleWhy = "Through kernel 4.11 tcp_tw_recycle ended TIME_WAIT after about a second, and dropped each SYN from an " +
	"address whose time stamp was " +
	"older than the last one seen from there, or that had none. Clients that share an address (NAT, balancer) have clocks of " +
	"their own: their SYNs vanish."

func (sc *scene) recycleOn(p *place, value int64) draft {
	f := draft{ties: []tie{{setting: keyRecycle}}}
	f.Netns, f.Confidence, f.Severity = p.netns, High, Warning
	f.Summary = fmt.Sprintf("tcp_tw_recycle is %d in %s: it drops new connections of clients that share an address", value, p.netns.Label)
	f.Why = recycleWhy
	f.Evidence = []Evidence{{
		ID: "recycle", Name: "tcp_tw_recycle", Value: float64(value), Limit: new(0.0), Source: keyRecycle, Check: p.sysctl(keyRecycle),
	}}
	if rise, told := p.Counters.Rose("TcpExtPAWSPassive"); told {
		f.Evidence = append(f.Evidence, Evidence{
			ID: "TcpExtPAWSPassive", Name: "PAWSPassive rise", Value: float64(rise), Unit: "SYNs",
			Source: "/proc/net/netstat: SYNs dropped for their time stamp", Check: p.in("nstat -az TcpExtPAWSPassive"),
		})
		if rise > 0 {
			f.Severity, f.FailingNow = Critical, true
			f.Summary += fmt.Sprintf("; %s dropped now", figure.Items(int(rise), "SYN"))
		}
	}
	f.doubt("SYNs without a time stamp are dropped as well, and no counter tells them")
	f.Remedies = []RemedyID{RecycleOff}
	f.WillNotHelp = []Folklore{
		Folklore(setting.TimestampsOffForRecycle),
	}
	return f
}

func recycleInFile(b snapshot.BootSetting, exists bool) draft {
	f := draft{ties: []tie{{setting: keyRecycle}}}
	f.Key.Part = bootPart(b)
	f.Confidence, f.Severity = High, Info
	f.Summary = fmt.Sprintf("%s:%d sets tcp_tw_recycle to %s, which this kernel does not have: it does nothing", b.File, b.Line, b.Value)
	f.Why = "Kernel 4.12 removed the key. The line is left from advice for older kernels, and whoever reads it believes that it helps."
	if exists {
		f.Severity = Warning
		f.Summary = fmt.Sprintf("%s:%d would set tcp_tw_recycle to %s at the next boot", b.File, b.Line, b.Value)
		f.Why = recycleWhy
	}
	f.Evidence = []Evidence{{
		ID: "line", Name: "line of " + b.File, Value: float64(b.Line), Unit: "line", Source: b.File,
		Check: fmt.Sprintf("sed -n %dp %s", b.Line, quote(b.File)),
	}}
	f.Remedies = []RemedyID{RecycleOff}
	f.WillNotHelp = []Folklore{noRecycle}
	return f
}
