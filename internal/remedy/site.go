package remedy

import (
	"fmt"
	"strconv"

	"linger/internal/capacity"
	"linger/internal/diagnose"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// site is where a finding was made: what remedies need to become concrete.
type site struct {
	f    diagnose.Finding
	host *snapshot.Host
	ns   *snapshot.Namespace // nil for what concerns the whole host
	all  []snapshot.Namespace
	// window is the time in seconds between the readings of counters.
	window float64
	// group is the finding's own, nil where it is about none.
	group *snapshot.Group

	budgets diagnose.Budgets
	budget  capacity.Budget
	// counted is false where the source ports could not be accounted for.
	counted bool
}

func siteOf(f diagnose.Finding, s *snapshot.Snapshot) *site {
	at := &site{f: f, host: &s.Host, all: s.Namespaces, window: float64(s.WindowMS) / 1000}
	at.ns = s.Namespace(f.Netns.Cookie, f.Netns.Inode)
	if at.ns == nil {
		return at
	}
	at.budgets = diagnose.NewBudgets(at.ns)
	for i := range at.ns.Groups {
		g := &at.ns.Groups[i]
		if g.Role == f.Subject.Role && g.Local == f.Subject.Local && g.Remote == f.Subject.Remote {
			at.group = g
			at.budget, at.counted = at.budgets.Of(g)
			break
		}
	}
	return at
}

// closes is the higher of the closes per second over the last minute and now.
func (at *site) closes() float64 {
	if at.group == nil || at.group.Closes == nil {
		return 0
	}
	h := capacity.HistoryOf(at.group.Closes.PerSecond, at.group.Closes.Past, at.group.States[tcp.TimeWait])
	return max(h.LastMinute(), h.Rate(capacity.TimeWaitSeconds))
}

// owner is the name of the process that most likely has to change.
func (at *site) owner() string {
	if len(at.f.Owners) == 0 {
		return ""
	}
	return at.f.Owners[0].Process
}

// set is the command that writes a sysctl in the finding's namespace.
func (at *site) set(key, value string) string {
	return diagnose.In(at.f.Netns, "sysctl -w "+assignment(key, value))
}

func assignment(key, value string) string {
	for _, r := range value {
		if r == ' ' {
			return key + `="` + value + `"`
		}
	}
	return key + "=" + value
}

// HandFile is where an administrator keeps a setting of the host by hand. Those that
// linger keeps are in files of its own, 90-linger-ID.conf.
const HandFile = "/etc/sysctl.d/90-local.conf"

// PodSafeFirst is the Kubernetes that first let a pod set sysctls.
const PodSafeFirst = "1.4"

// PodSafe are the sysctls of linger's that a pod may set unless the cluster forbids it,
// and from which Kubernetes on: safeSysctls of pkg/kubelet/sysctl/safe_sysctls.go, with
// the versions of kubernetes.io/docs/reference/node/kernel-version-requirements; the
// first two are those of the first list (pull request 32072). Pod Security's baseline
// allows the same (check_sysctls.go of k8s.io/pod-security-admission). All others need
// the kubelet's --allowed-unsafe-sysctls.
var PodSafe = map[string]string{
	"net.ipv4.ip_local_port_range":     PodSafeFirst,
	"net.ipv4.tcp_syncookies":          PodSafeFirst,
	"net.ipv4.ip_local_reserved_ports": "1.27",
	"net.ipv4.tcp_keepalive_time":      "1.29",
	"net.ipv4.tcp_fin_timeout":         "1.29",
	"net.ipv4.tcp_keepalive_intvl":     "1.29",
	"net.ipv4.tcp_keepalive_probes":    "1.29",
}

// persist is what keeps a setting for ever. A namespace starts from the compiled
// defaults, whatever the host has, so that only the host's own is kept in a file
// of the host.
func (at *site) persist(key, value string) *Persist {
	kind := snapshot.LabelHost
	if at.ns != nil {
		kind = at.ns.Label.Kind
	}
	switch kind {
	case snapshot.LabelPod:
		p := &Persist{
			File: "the pod's manifest",
			Line: fmt.Sprintf("spec.securityContext.sysctls: [{name: %s, value: %q}]", key, value),
		}
		if _, safe := PodSafe[key]; !safe {
			p.Note = "not among Kubernetes' safe sysctls: the kubelet must allow it (--allowed-unsafe-sysctls)"
		}
		return p
	case snapshot.LabelContainer:
		return &Persist{File: "the container's docker run or compose file", Line: "--sysctl " + assignment(key, value)}
	case snapshot.LabelNamed:
		return &Persist{File: "whatever creates the namespace", Line: at.set(key, value)}
	case snapshot.LabelProcess:
		return &Persist{File: "whatever starts " + at.ns.Label.Name, Line: "sysctl -w " + assignment(key, value)}
	}
	p := &Persist{File: HandFile, Line: key + " = " + value}
	for _, b := range at.host.Boot {
		if b.Key != key || b.File == HandFile {
			continue
		}
		last := fmt.Sprintf("%s:%d has the last word now (%s)", b.File, b.Line, b.Value)
		if p.File == HandFile {
			p.File, p.Note = b.File, "replaces line "+strconv.Itoa(b.Line)+": "+last
		} else if p.File != b.File {
			p.Note += "; " + last
		}
	}
	return p
}

// runsPods tells whether a pod's namespace was read.
func (at *site) runsPods() bool {
	for i := range at.all {
		if at.all[i].Label.Kind == snapshot.LabelPod {
			return true
		}
	}
	return false
}

// Keep is what keeps a setting of a namespace for ever, and where.
func Keep(s *snapshot.Snapshot, ns *snapshot.Namespace, key, value string) *Persist {
	at := &site{host: &s.Host, all: s.Namespaces, ns: ns, f: diagnose.Finding{Netns: diagnose.Netns{
		Cookie: ns.Cookie, Inode: ns.Inode, Label: ns.Label.String(), PID: ns.PID, Path: ns.Path, Own: ns.Own,
	}}}
	return at.persist(key, value)
}

// NodePorts is the range of Kubernetes' NodePort services, by its default
// (kube-apiserver --service-node-port-range).
var NodePorts = nodePorts
