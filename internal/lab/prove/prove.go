// Package prove makes an experiment of each change of a plan: the place as it is, and as
// it is planned.
package prove

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/sysctl"
	"linger/internal/lab"
	"linger/internal/proof"
	"linger/internal/setting"
	"linger/internal/tcp"
)

// Proposal is one value of one key that a plan sets, and what stands beside it there.
type Proposal struct {
	Key, Old, New string
	// HostWide: the kernel keeps the key once, so that the laboratory does not write it.
	HostWide bool
	// Beside are the values of other keys at that place.
	Beside map[string]string
}

// SettingsOf reads the settings of a namespace by a path that leads to it, if it still
// is the one with that cookie, or with that inode where the kernel gives no cookies.
// What this kernel does not have is left out.
func SettingsOf(path string, cookie, inode uint64) (settings map[string]string, err error) {
	h, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	switch now, err := h.Cookie(); {
	case errors.Is(err, errors.ErrUnsupported) && cookie == 0 && h.Inode() == inode:
	case err != nil:
		return nil, err
	case now != cookie:
		return nil, fmt.Errorf("%s leads to another namespace", path)
	}
	err = h.Do(func() error {
		settings, err = sysctl.ReadAll(sysctl.PerNamespace)
		return err
	})
	return settings, err
}

// The keys for which there is an experiment.
const (
	keyRange      = setting.LocalPortRange
	keyReserved   = setting.LocalReservedPorts
	keyReuse      = setting.TWReuse
	keyReuseDelay = setting.TWReuseDelay
	keyTimestamps = setting.Timestamps
	keyFinTimeout = setting.FinTimeout
	keyBuckets    = setting.MaxTWBuckets
	keySomaxconn  = setting.Somaxconn
	keyRFC1337    = setting.RFC1337
	keyKeepalive  = setting.KeepaliveTime
	keyProbes     = setting.KeepaliveInterval

	keyTracksTimeWait    = setting.TrackedTimeWait
	keyTracksEstablished = setting.TrackedEstablished
)

// provers make an experiment of a proposal of their key, or say why there can be none.
var provers = map[string]func(Proposal) (lab.Experiment, error){
	keyRange:             proveRange,
	keyReserved:          proveReserved,
	keyReuse:             proveTakeOver,
	keyReuseDelay:        proveTakeOver,
	keyTimestamps:        proveTakeOver,
	keyFinTimeout:        proveFinTimeout,
	keyBuckets:           proveBuckets,
	keySomaxconn:         proveSomaxconn,
	keyRFC1337:           proveRFC1337,
	keyKeepalive:         proveKeepalive,
	keyTracksTimeWait:    proveTracksTimeWait,
	keyTracksEstablished: proveTracksEstablished,
}

// Experiment shows what the proposal does: its base line has the old value, its one
// variant the new one, and either has beside it what stands at the place. Where it cannot
// be built here, Cannot says why.
func (p Proposal) Experiment() lab.Experiment {
	prover, known := provers[p.Key]
	var e lab.Experiment
	err := fmt.Errorf("no experiment shows what %s does", p.Key)
	switch {
	case p.HostWide:
		err = fmt.Errorf("cannot build here: the kernel keeps %s once for the whole host, "+
			"and the laboratory never writes such a key", p.Key)
	case known:
		e, err = prover(p)
	}
	e.Name, e.Title = p.Key, fmt.Sprintf("%s: %s → %s", p.Key, orNothing(p.Old), orNothing(p.New))
	if err != nil {
		e.Cannot, e.Arms = err.Error(), nil
	}
	return e
}

func orNothing(value string) string {
	if value == "" {
		return "(nothing)"
	}
	return value
}

// compare completes an experiment by its two arms.
func (p Proposal) compare(e lab.Experiment, seconds float64, arm func(value string) lab.Measure) (lab.Experiment, error) {
	e.Arms = []lab.Arm{
		{Arm: proof.Arm{ID: "base", Title: "as it is: " + orNothing(p.Old)}, Seconds: seconds, Run: arm(p.Old)},
		{Arm: proof.Arm{
			ID: "plan", Title: "as planned", How: p.Key + "=" + p.New, Kind: proof.Remedy, Expect: proof.Works,
		}, Seconds: seconds, Run: arm(p.New)},
	}
	return e, nil
}

// sysctls are those beside the key, but for some that the experiment chooses itself, and
// a value of the key. What is empty is left as it is.
func (p Proposal) sysctls(at func(key, value string) lab.Sysctl, value string, chosen ...string) []lab.Sysctl {
	var all []lab.Sysctl
	for _, key := range slices.Sorted(maps.Keys(p.Beside)) {
		if p.Beside[key] != "" && key != p.Key && !slices.Contains(chosen, key) {
			all = append(all, at(key, p.Beside[key]))
		}
	}
	if value != "" && !slices.Contains(chosen, p.Key) {
		all = append(all, at(p.Key, value))
	}
	return all
}

// numbers are the old and the new value where they are whole numbers.
func (p Proposal) numbers() (old, new int, err error) {
	if old, err = strconv.Atoi(strings.TrimSpace(p.Old)); err == nil {
		new, err = strconv.Atoi(strings.TrimSpace(p.New))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.Key, err)
	}
	return old, new, nil
}

// scale divides two numbers by the same one, so that the smaller comes to be at most so
// many.
func scale(a, b, most int) (int, int, string) {
	by := (min(a, b) + most - 1) / most
	if by <= 1 {
		return a, b, ""
	}
	return a / by, b / by, ", both divided by " + proof.Number(float64(by))
}

// freePorts are the ports of a range that are not reserved.
func freePorts(text string, reserved tcp.PortSet) (int, error) {
	r, err := tcp.ParsePortRange(text)
	if err != nil {
		return 0, err
	}
	return r.Size() - reserved.Within(r), nil
}
