// Package setting is the catalogue of the kernel settings (sysctls) that linger reads,
// plans, refuses, proves or explains: what each one is, where the kernel keeps it, what
// it does, and what people believe of it. It reads no kernel, and chooses nothing: what
// to read, to change or to recommend is for others to say.
//
// What is not known is left out: a kernel is zero where nobody has looked in which one
// it was.
package setting

import (
	"slices"
	"strconv"
)

// Setting is what is known of one sysctl.
type Setting struct {
	Name  string
	Scope Scope
	// Read: a snapshot has its value.
	Read bool

	// Since and Until are the first and the last kernel that have it. Own is the first
	// one that keeps a value for each namespace.
	Since, Until, Own Kernel
	// Vendors are those whose kernels alone have it; none for the kernel of kernel.org.
	Vendors []string
	// Kernels says the same in words, for a person.
	Kernels string

	// Defaults are in the order of the kernels.
	Defaults []Default
	Legal    Legal
	// Pods is the Kubernetes from which on a pod may set it unless the cluster forbids
	// it; empty where the kubelet must allow it by --allowed-unsafe-sysctls.
	Pods string

	// Does is what it really does, without a full stop, and Source where that stands;
	// Two is what the value 2 does where it is another thing, and After what is to add.
	Does, Source, Two, After string
	// Unit is that of its number, empty where the number is a choice.
	Unit string
	// Risk is that of the change which the setting is there for.
	Risk string
	// When says how soon a change shows, empty for at once.
	When string
	// Dependents are what else reads it or is touched by it.
	Dependents []string
	// Refused is why linger does not set some values of it, nil where it takes all that
	// are legal.
	Refused *Refused
	// Beliefs circulate about it.
	Beliefs []Belief
}

// Mechanism is all that the setting does, in a sentence.
func (s *Setting) Mechanism() string {
	text := s.Does
	if s.Two != "" {
		text += "; " + s.Two
	}
	if s.Source != "" {
		text += " (" + s.Source + ")"
	}
	return text + s.After + "."
}

// Default is what the newest kernels that have it begin with.
func (s *Setting) Default() Default { return s.Defaults[len(s.Defaults)-1] }

// Scope is where the kernel keeps a setting, by the newest kernels that have it.
type Scope int

// A new namespace begins with the compiled defaults, and not with the values of the
// host. One that is host-wide is absent in all namespaces but the first, or read-only
// there.
const (
	PerNamespace Scope = iota + 1
	HostWide
)

func (s Scope) String() string {
	if s == HostWide {
		return "once for the whole host"
	}
	return "for each namespace"
}

// Kernel is a version of kernel.org's, the zero value one that is not known. Vendors
// carry changes back: whether a kernel has a setting is seen by reading it.
type Kernel struct{ Major, Minor int }

func (k Kernel) String() string { return strconv.Itoa(k.Major) + "." + strconv.Itoa(k.Minor) }

// Default is a value that a setting begins with.
type Default struct {
	// From is the first kernel that has it.
	From Kernel
	// Value is as the kernel prints it, with one space between words; empty for a list
	// without members, and where the kernel reckons it.
	Value string
	By    Origin
}

// Origin is where a default comes from.
type Origin int

// A default is a constant, or the kernel reckons it when it starts: from the size of
// memory, or from the length of its tick (CONFIG_HZ).
const (
	Compiled Origin = iota
	Memory
	Tick
)

// Legal are the values that a setting is meant to have. The kernel takes them all, and
// may take others, which it treats as one of these: ipv4_net_table and ipv4_table of
// net/ipv4/sysctl_net_ipv4.c, netns_core_table of net/core/sysctl_net_core.c,
// nf_ct_sysctl_table of net/netfilter/nf_conntrack_standalone.c.
type Legal struct {
	Form Form
	// Low and High bound each number; both are 0 where Unbounded says why there are none.
	Low, High int64
	Unbounded string
}

// Form is what a value looks like.
type Form int

// The forms: a number, three of them, a range of ports, a list of ports.
const (
	Number Form = iota
	Three
	Range
	List
)

// Refused is why linger does not set a value, and what to do instead.
type Refused struct {
	Reason, Instead string
	// Harms tells which new values it is about, given the old one; nil for all, for
	// which there is no force either.
	Harms func(old, new int64) bool
}

// PodsFirst is the Kubernetes that first let a pod set sysctls. Which ones, and from
// which version on, is in safeSysctls of pkg/kubelet/sysctl/safe_sysctls.go and
// kubernetes.io/docs/reference/node/kernel-version-requirements; the two that are this
// old are those of the first list (pull request 32072). Pod Security's baseline allows
// the same (check_sysctls.go of k8s.io/pod-security-admission).
const PodsFirst = "1.4"

// catalogue has the settings in the order in which they are read and told.
var catalogue = slices.Concat(ports, waiting, handshakes, silence, listening, host, tracking)

// All are the settings, those that a namespace has first.
func All() []Setting { return catalogue }

// Of is what is known of a setting, nil where that is nothing. It is not to be changed.
func Of(name string) *Setting {
	for i := range catalogue {
		if catalogue[i].Name == name {
			return &catalogue[i]
		}
	}
	return nil
}

// PodsFrom is the Kubernetes from which on a pod may set it, empty where there is none.
func PodsFrom(name string) string {
	if known := Of(name); known != nil {
		return known.Pods
	}
	return ""
}
