// Package procnet reads the counters of /proc/net in the network namespace of the
// calling thread, and parses the same files captured elsewhere. It refuses to open
// the socket tables there (tcp, tcp6): sock_diag tells them better.
package procnet

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// threadNet follows the thread, where /proc/net would follow the process.
const threadNet = "/thread-self/net/"

// ReadCounters is ParseCounters of the calling thread's netstat and snmp. The
// goroutine must be locked to its thread.
func ReadCounters() (map[string]uint64, error) {
	files := Open("/proc")
	defer files.Close()
	return files.Counters()
}

// ParseCounters reads the TCP counters of /proc/net/netstat and /proc/net/snmp
// (net/ipv4/proc.c), given in any order. They are named as nstat(8) names them:
// TcpExtTW, TcpOutRsts. A value that is no count, such as the -1 of TcpMaxConn, is
// left out. What could be parsed is returned with the error for the rest.
func ParseCounters(files ...[]byte) (map[string]uint64, error) {
	counters := make(map[string]uint64, 192)
	var problems []error
	for _, text := range files {
		// The files hold pairs of lines, names and values, with the same first word.
		for len(text) > 0 {
			var names, values []byte
			names, text, _ = bytes.Cut(text, []byte("\n"))
			prefix, names, ok := bytes.Cut(names, []byte(":"))
			if !ok || !ours(prefix) {
				continue
			}
			values, text, _ = bytes.Cut(text, []byte("\n"))
			second, values, _ := bytes.Cut(values, []byte(":"))
			if !bytes.Equal(prefix, second) {
				problems = append(problems, fmt.Errorf("parse counters: names of %s without values", prefix))
				continue
			}
			if err := pair(counters, string(prefix), names, values); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return counters, errors.Join(problems...)
}

func ours(prefix []byte) bool {
	return string(prefix) == "Tcp" || string(prefix) == "TcpExt"
}

// pair stores the counters of one pair of lines.
func pair(counters map[string]uint64, prefix string, names, values []byte) error {
	for {
		name, restNames := word(names)
		value, restValues := word(values)
		names, values = restNames, restValues
		switch {
		case len(name) == 0 && len(value) == 0:
			return nil
		case len(name) == 0 || len(value) == 0:
			return fmt.Errorf("parse counters: %s has not as many values as names", prefix)
		case value[0] == '-':
			continue
		}
		n, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("parse counters: %s%s: %w", prefix, name, err)
		}
		counters[prefix+string(name)] = n
	}
}

// word cuts the first word off a line.
func word(line []byte) (first, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	if end := bytes.IndexAny(line, " \t"); end >= 0 {
		return line[:end], line[end:]
	}
	return line, nil
}
