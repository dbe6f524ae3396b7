package procnet

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Sockstat is the TCP part of /proc/net/sockstat and sockstat6 (net/ipv4/proc.c,
// net/ipv6/proc.c). A nil field is not in the file.
type Sockstat struct {
	// Counted in the namespace.
	InUse4   *int64 // hashed IPv4 sockets, without those in TIME_WAIT
	InUse6   *int64 // the same for IPv6; nil where the kernel has no IPv6
	TimeWait *int64 // IPv4 and IPv6, FIN_WAIT2 time-wait sockets included

	// Counted once for all namespaces.
	Orphans     *int64
	Allocated   *int64
	MemoryPages *int64
}

// ParseSockstat reads the text of sockstat and of sockstat6; either may be empty.
// What could be parsed is returned with the error for the rest.
func ParseSockstat(four, six []byte) (Sockstat, error) {
	var s Sockstat
	return s, errors.Join(
		fields(four, "TCP", map[string]**int64{
			"inuse": &s.InUse4, "tw": &s.TimeWait, "orphan": &s.Orphans, "alloc": &s.Allocated, "mem": &s.MemoryPages,
		}),
		fields(six, "TCP6", map[string]**int64{"inuse": &s.InUse6}))
}

// fields stores the numbers of the one line that begins with the protocol.
func fields(text []byte, protocol string, into map[string]**int64) error {
	var problems []error
	for line := range bytes.Lines(text) {
		name, line, ok := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if !ok || string(name) != protocol {
			continue
		}
		for {
			var key, value []byte
			key, line = word(line)
			value, line = word(line)
			if len(key) == 0 {
				break
			}
			field, wanted := into[string(key)]
			if !wanted {
				continue
			}
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				problems = append(problems, fmt.Errorf("parse sockstat: %s %s: %w", protocol, key, err))
				continue
			}
			*field = &n
		}
	}
	return errors.Join(problems...)
}
