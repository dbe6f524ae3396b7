package lab

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/sysctl"
	"linger/internal/proof"
	catalogue "linger/internal/setting"
	"linger/internal/tcp"
)

// Change is one value of one key, as a plan sets it, and what stands beside it there.
type Change struct {
	Key, Old, New string
	// HostWide: the kernel keeps the key once, so that the laboratory does not write it.
	HostWide bool
	// Beside are the values of other keys at that place.
	Beside map[string]string
}

// ErrElsewhere means that a path leads to another namespace than it did.
var ErrElsewhere = errors.New("another namespace")

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
		return nil, fmt.Errorf("%s: %w", path, ErrElsewhere)
	}
	err = h.Do(func() error {
		settings, err = sysctl.ReadAll(sysctl.PerNamespace)
		return err
	})
	return settings, err
}

// The keys for which there is an experiment.
const (
	keyRange      = catalogue.LocalPortRange
	keyReserved   = catalogue.LocalReservedPorts
	keyReuse      = catalogue.TWReuse
	keyReuseDelay = catalogue.TWReuseDelay
	keyTimestamps = catalogue.Timestamps
	keyFinTimeout = catalogue.FinTimeout
	keyBuckets    = catalogue.MaxTWBuckets
	keySomaxconn  = catalogue.Somaxconn
	keyRFC1337    = catalogue.RFC1337
	keyKeepalive  = catalogue.KeepaliveTime
	keyProbes     = catalogue.KeepaliveInterval

	keyTracksTimeWait    = catalogue.TrackedTimeWait
	keyTracksEstablished = catalogue.TrackedEstablished
)

// provers make an experiment of a change of their key, or say why there can be none.
var provers = map[string]func(Change) (Experiment, error){
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

// Prove is the experiment that shows what a change does: its base line has the old
// value, its one variant the new one, and either has beside it what stands at the
// change's place. Where it cannot be built here, Cannot says why.
func (c Change) Prove() Experiment {
	prover, known := provers[c.Key]
	var e Experiment
	err := fmt.Errorf("no experiment shows what %s does", c.Key)
	switch {
	case c.HostWide:
		err = fmt.Errorf("cannot build here: the kernel keeps %s once for the whole host, and the laboratory never writes such a key", c.Key)
	case known:
		e, err = prover(c)
	}
	e.Name, e.Title = c.Key, fmt.Sprintf("%s: %s → %s", c.Key, orNothing(c.Old), orNothing(c.New))
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
func (c Change) compare(e Experiment, seconds float64, arm func(value string) runner) (Experiment, error) {
	e.Arms = []Arm{
		{Arm: base("as it is: " + orNothing(c.Old)), Seconds: seconds, Run: arm(c.Old)},
		{Arm: remedy("plan", "as planned", c.Key+"="+c.New, proof.Works), Seconds: seconds, Run: arm(c.New)},
	}
	return e, nil
}

// settings are those beside the change, but for some keys that the experiment chooses
// itself, and a value of the changed key. What is empty is left as it is.
func (c Change) settings(at side, value string, chosen ...string) []setting {
	var all []setting
	for _, key := range slices.Sorted(maps.Keys(c.Beside)) {
		if c.Beside[key] != "" && key != c.Key && !slices.Contains(chosen, key) {
			all = append(all, setting{at, key, c.Beside[key]})
		}
	}
	if value != "" && !slices.Contains(chosen, c.Key) {
		all = append(all, setting{at, c.Key, value})
	}
	return all
}

// numbers are the old and the new value where they are whole numbers.
func (c Change) numbers() (old, new int, err error) {
	if old, err = strconv.Atoi(strings.TrimSpace(c.Old)); err == nil {
		new, err = strconv.Atoi(strings.TrimSpace(c.New))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", c.Key, err)
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
