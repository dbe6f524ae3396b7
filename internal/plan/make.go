package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// Wish is what a plan is asked for.
type Wish struct {
	// Problems to cure; none of them and no Set means all that are found.
	Problems []diagnose.Slug
	// Set are keys and values to plan in each of the namespaces that In chooses.
	Set []remedy.Assignment
	In  func(*snapshot.Namespace) bool
	// Force plans what linger refuses but the kernel takes.
	Force bool
}

// Make makes a plan from what was seen and judged. The error joins each *Refusal.
func Make(s *snapshot.Snapshot, d diagnose.Diagnosis, w Wish) (*Plan, error) {
	m := &maker{snapshot: s, wish: w, plan: &Plan{
		Schema: Schema, MadeAt: s.TakenAt.UTC(),
		Host:     Host{Name: s.Host.Name, Kernel: s.Host.Kernel, BootID: s.Host.BootID},
		Problems: []diagnose.Slug{}, Changes: []Change{}, Notes: []string{}, Counters: []Counters{},
	}}
	if len(w.Set) == 0 || len(w.Problems) > 0 {
		m.cure(d.Findings)
	}
	m.set()
	if err := errors.Join(m.problems...); err != nil {
		return nil, err
	}
	m.reserve()
	m.measure()
	if err := m.plan.Check(); err != nil {
		return nil, err
	}
	return m.plan, nil
}

// maker is a plan in the making.
type maker struct {
	snapshot *snapshot.Snapshot
	wish     Wish
	plan     *Plan
	problems []error
}

// cure adds what the remedies of the findings set. A remedy that is no setting is a
// note: the better cure is often in a program.
func (m *maker) cure(findings []diagnose.Finding) {
	for _, f := range findings {
		if len(m.wish.Problems) == 0 || slices.Contains(m.wish.Problems, f.Problem) {
			m.remedies(f)
		}
		m.cure(f.Related)
	}
}

func (m *maker) remedies(f diagnose.Finding) {
	if !slices.Contains(m.plan.Problems, f.Problem) {
		m.plan.Problems = append(m.plan.Problems, f.Problem)
	}
	for i, r := range remedy.For(f, m.snapshot) {
		if len(r.Sets) == 0 {
			if i == 0 {
				m.note("%s: better than any setting: %s", f.Problem, r.Title)
			}
			continue
		}
		for _, a := range r.Sets {
			k, err := keyOf(a.Key)
			if err != nil {
				m.note("%s: left out: %s", f.Problem, r.Now)
				continue
			}
			ns := m.snapshot.Namespace(f.Netns.Cookie, f.Netns.Inode)
			m.add(k, ns, a, Change{Why: f.Summary, Mechanism: r.Mechanism, Risk: r.Risk, Kernels: r.Kernels})
		}
	}
}

// set adds what was asked for by key and value.
func (m *maker) set() {
	for _, a := range m.wish.Set {
		k, err := keyOf(a.Key)
		if err == nil {
			if value := k.valid(a.Value); value != nil {
				err = fmt.Errorf("%s: %w", a.Key, value)
			}
		}
		if err != nil {
			m.problems = append(m.problems, err)
			continue
		}
		if k.hostWide {
			m.add(k, nil, a, Change{Why: "asked for"})
			continue
		}
		for i := range m.snapshot.Namespaces {
			if ns := &m.snapshot.Namespaces[i]; m.wish.In == nil || m.wish.In(ns) {
				m.add(k, ns, a, Change{Why: "asked for"})
			}
		}
	}
}

// add completes a change and adds it, unless it changes nothing or its key is
// planned already.
func (m *maker) add(k key, ns *snapshot.Namespace, a remedy.Assignment, c Change) {
	if k.hostWide {
		ns = m.hostNamespace()
	}
	if ns == nil {
		m.problems = append(m.problems, fmt.Errorf("%s belongs to the whole host: plan from the host's own namespace", a.Key))
		return
	}
	old, known := m.value(k, ns)
	if !known && k.hostWide {
		m.problems = append(m.problems, fmt.Errorf("%s is the whole host's, and could not be read here: plan in the host's own namespace, and see that its module is loaded", a.Key))
		return
	}
	if !known {
		m.problems = append(m.problems, fmt.Errorf("%s does not exist in %s, or could not be read", a.Key, ns.Label))
		return
	}
	c.Key, c.Old, c.New, c.Scope = a.Key, old, a.Value, scopeOf(k, ns)
	if Same(old, a.Value) {
		m.note("%s is %s already in %s", a.Key, old, c.Scope)
		return
	}
	for i := range m.plan.Changes {
		if other := &m.plan.Changes[i]; other.Key == a.Key && other.Scope.Same(c.Scope) {
			if a.Key == KeyReserved { // both reservations hold
				other.New = union(other.New, a.Value)
			} else if !Same(other.New, a.Value) {
				m.note("%s = %s is left out: %s is planned in %s", a.Key, a.Value, other.New, c.Scope)
			}
			return
		}
	}
	if refusal := Refuse(a.Key, old, a.Value); refusal != nil {
		if !m.wish.Force || !refusal.Legal {
			m.problems = append(m.problems, refusal)
			return
		}
		c.Forced = refusal.Reason
	}
	if seconds, ok := number(a.Value); ok && a.Key == keyFinTimeout && seconds > 60 && seconds < 120 {
		m.note("%s = %d does the opposite of what it says: from 61 to 119 an orphan waits %d s (net/ipv4/tcp.c, __tcp_close)", a.Key, seconds, 2*(seconds-60))
	}
	c.complete(k)
	c.Persist = m.keep(k, ns, a)
	m.plan.Changes = append(m.plan.Changes, c)
}

// keep is what keeps a value for ever: of the host, a file that linger writes when it is
// asked to, so that it has the last word.
func (m *maker) keep(k key, ns *snapshot.Namespace, a remedy.Assignment) *Persist {
	if !k.hostWide && ns.Label.Kind != snapshot.LabelHost {
		kept := remedy.Keep(m.snapshot, ns, a.Key, a.Value)
		return &Persist{File: kept.File, Line: kept.Line, Note: kept.Note}
	}
	p := &Persist{File: "/etc/sysctl.d/90-linger-ID.conf", Line: a.Key + " = " + a.Value, Note: "`linger confirm ID --persist` writes it"}
	for _, b := range m.snapshot.Host.Boot {
		if b.Key == a.Key && !Same(b.Value, a.Value) {
			p.Note += fmt.Sprintf("; %s:%d sets %s now: it takes a name that is read later, or tells the mend", b.File, b.Line, b.Value)
		}
	}
	return p
}

// complete adds what is known of the key, where no remedy said it.
func (c *Change) complete(k key) {
	for text, known := range map[*string]string{&c.Mechanism: k.mechanism, &c.Risk: k.risk, &c.Kernels: k.kernels} {
		if *text == "" {
			*text = known
		}
	}
	c.Dependents = slices.Clone(k.dependents)
	c.Effects = []Effect{}
}

func scopeOf(k key, ns *snapshot.Namespace) Scope {
	s := Scope{HostWide: k.hostWide, Cookie: ns.Cookie, Inode: ns.Inode, Label: ns.Label.String(), Path: ns.Path, Own: ns.Own}
	if s.Path == "" && ns.PID != 0 {
		s.Path = fmt.Sprintf("/proc/%d/ns/net", ns.PID)
	}
	return s
}

// hostNamespace is the one that has the keys of the whole host.
func (m *maker) hostNamespace() *snapshot.Namespace {
	for i := range m.snapshot.Namespaces {
		if ns := &m.snapshot.Namespaces[i]; ns.Label.Kind == snapshot.LabelHost {
			return ns
		}
	}
	return nil
}

// value is the present one. A namespace keeps its conntrack time-outs apart.
func (m *maker) value(k key, ns *snapshot.Namespace) (string, bool) {
	settings := ns.Settings
	if k.hostWide {
		settings = m.snapshot.Host.Settings
	}
	if value, known := settings[k.name]; known {
		return value, true
	}
	if state, found := strings.CutPrefix(k.name, trackedTimeouts); found && ns.Conntrack != nil {
		seconds, known := ns.Conntrack.TimeoutSeconds[state]
		return strconv.FormatInt(seconds, 10), known
	}
	return "", false
}

func (m *maker) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(m.plan.Notes, text) {
		m.plan.Notes = append(m.plan.Notes, text)
	}
}

// reserve keeps a wider range from taking the ports of services: those of listeners
// are reserved, before the range is written.
func (m *maker) reserve() {
	for _, c := range slices.Clone(m.plan.Changes) {
		if c.Key != KeyRange {
			continue
		}
		old, errOld := tcp.ParsePortRange(c.Old)
		wide, errNew := tcp.ParsePortRange(c.New)
		ns := m.snapshot.Namespace(c.Scope.Cookie, c.Scope.Inode)
		if errOld != nil || errNew != nil || ns == nil {
			continue
		}
		swallowed := swallowedBy(ns, old, wide)
		reserved, _ := ns.Settings.ReservedPorts()
		at := slices.IndexFunc(m.plan.Changes, func(other Change) bool { return other.Key == KeyReserved && other.Scope.Same(c.Scope) })
		if at >= 0 {
			reserved, _ = tcp.ParsePortSet(m.plan.Changes[at].New)
		}
		if with := reserved.Union(swallowed); with.String() != reserved.String() {
			if at >= 0 {
				m.plan.Changes[at].New = with.String()
			} else {
				k, _ := keyOf(KeyReserved)
				m.add(k, ns, remedy.Assignment{Key: KeyReserved, Value: with.String()},
					Change{Why: fmt.Sprintf("services listen on ports %s, which the wider range would give away", swallowed)})
			}
		}
		if overlaps(wide, remedy.NodePorts) && !overlaps(old, remedy.NodePorts) {
			m.note("%s in %s takes in Kubernetes' NodePorts (%s): if this host is a node, reserve them, or NodePort services lose connections",
				wide, c.Scope, remedy.NodePorts)
		}
	}
	// A range that is written first could give a port away in between.
	slices.SortStableFunc(m.plan.Changes, func(a, b Change) int { return order(a.Key) - order(b.Key) })
}

func order(key string) int {
	switch key {
	case KeyReserved:
		return 0
	case KeyRange:
		return 2
	default:
		return 1
	}
}

// swallowedBy are the ports of listeners that a wider range adds.
func swallowedBy(ns *snapshot.Namespace, old, wide tcp.PortRange) tcp.PortSet {
	var ports []uint16
	for _, l := range ns.Listeners {
		if p := l.Local.Port; wide.Contains(p) && !old.Contains(p) {
			ports = append(ports, p)
		}
	}
	return tcp.PortSetOf(ports...)
}

func overlaps(a, b tcp.PortRange) bool { return a.Low <= b.High && b.Low <= a.High }

func union(a, b string) string {
	one, _ := tcp.ParsePortSet(a)
	other, _ := tcp.ParsePortSet(b)
	return one.Union(other).String()
}
