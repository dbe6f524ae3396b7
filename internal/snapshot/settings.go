package snapshot

import (
	"strconv"
	"strings"

	"linger/internal/setting"
	"linger/internal/tcp"
)

// Settings are sysctls by their dotted name, with the value as the kernel prints
// it and white space trimmed. A key that is absent does not exist or could not
// be read.
type Settings map[string]string

// Int is the value of a key that holds one number.
func (s Settings) Int(key string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s[key]), 10, 64)
	return n, err == nil
}

// PortRange is the range of source ports.
func (s Settings) PortRange() (tcp.PortRange, bool) {
	r, err := tcp.ParsePortRange(s[setting.LocalPortRange])
	return r, err == nil
}

// ReservedPorts are the ports of it that connect() leaves out.
func (s Settings) ReservedPorts() (tcp.PortSet, bool) {
	text, ok := s[setting.LocalReservedPorts]
	if !ok {
		return nil, false
	}
	set, err := tcp.ParsePortSet(text)
	return set, err == nil
}

// Counters are totals since boot, and by how much each rose in the window. A
// total that is absent is unknown; Rise holds only what rose, and is nil where
// there was no window.
type Counters struct {
	Total map[string]uint64 `json:"total,omitempty"`
	Rise  map[string]uint64 `json:"rise"`
}

// Rose is by how much a counter rose in the window, and whether that is known.
func (c Counters) Rose(name string) (uint64, bool) {
	if _, known := c.Total[name]; !known || c.Rise == nil {
		return 0, false
	}
	return c.Rise[name], true
}

// NewCounters joins two readings. Without a second one nothing is known to rise;
// a counter that went backwards was reset and counts from zero.
func NewCounters(first, second map[string]uint64) Counters {
	if second == nil {
		return Counters{Total: first}
	}
	rise := map[string]uint64{}
	for name, now := range second {
		before, known := first[name]
		switch {
		case !known || now == before:
		case now > before:
			rise[name] = now - before
		default:
			rise[name] = now
		}
	}
	return Counters{Total: second, Rise: rise}
}
