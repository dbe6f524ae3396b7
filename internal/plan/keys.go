package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"linger/internal/setting"
	"linger/internal/tcp"
)

// keys are all that linger changes, but for the time-outs of connection tracking.
var keys = []string{
	setting.LocalPortRange, setting.LocalReservedPorts, setting.TWReuse, setting.TWReuseDelay, setting.Timestamps,
	setting.FinTimeout, setting.MaxTWBuckets, setting.MaxOrphans, setting.MaxSYNBacklog, setting.Somaxconn,
	setting.KeepaliveTime, setting.KeepaliveInterval, setting.KeepaliveProbes, setting.RFC1337, setting.SYNCookies,
	setting.TrackedMax,
}

// Keys are the names of all keys that linger changes.
func Keys() []string {
	names := slices.Clone(keys)
	for _, s := range setting.All() {
		if _, timeout := setting.TrackedState(s.Name); timeout {
			names = append(names, s.Name)
		}
	}
	return names
}

// keyOf is what is known of a key that linger changes.
func keyOf(name string) (*setting.Setting, error) {
	if slices.Contains(Keys(), name) {
		return setting.Of(name), nil
	}
	if refusal := Refuse(name, "", ""); refusal != nil {
		return nil, refusal
	}
	return nil, fmt.Errorf("%s is no key that linger changes; these are: %s", name, strings.Join(Keys(), ", "))
}

// valid tells whether the kernel takes a value.
func valid(k *setting.Setting, value string) error {
	switch k.Legal.Form {
	case setting.Range:
		r, err := tcp.ParsePortRange(value)
		if err == nil && int64(r.Low) < k.Legal.Low {
			err = fmt.Errorf("%q: want ports from %d on: those below are for services (ip_unprivileged_port_start)", value, k.Legal.Low)
		}
		return err
	case setting.List:
		_, err := tcp.ParsePortSet(value)
		return err
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < k.Legal.Low || n > k.Legal.High {
		return fmt.Errorf("%q: want a number from %d to %d", value, k.Legal.Low, k.Legal.High)
	}
	return nil
}

// number is a value as a number, where it is one.
func number(value string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, err == nil
}

// Refusal is why linger does not make a change, and what to do instead.
type Refusal struct {
	Key, New string
	Reason   string
	Instead  string
	// Legal: the kernel takes it and it can be meant, so that it may be forced.
	Legal bool
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("refused: %s = %s: %s; instead: %s", r.Key, r.New, r.Reason, r.Instead)
	if r.Legal {
		text += "; --force overrules it"
	}
	return text
}

// Refuse is why a change is not made, nil where nothing is against it.
func Refuse(key, old, new string) *Refusal {
	known := setting.Of(key)
	if known == nil || known.Refused == nil {
		return nil
	}
	refused := known.Refused
	r := &Refusal{Key: key, New: new, Reason: refused.Reason, Instead: refused.Instead, Legal: refused.Harms != nil}
	was, _ := number(old)
	if value, isNumber := number(new); r.Legal && (!isNumber || !refused.Harms(was, value)) {
		return nil
	}
	return r
}
