// Package conntrack reads how full the connection-tracking table of the calling
// thread's network namespace is, how long it remembers, and what it dropped. It
// refuses to list the table's entries.
package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"linger/internal/setting"
)

const (
	settings = "/proc/sys/net/netfilter"
	// statistics follows the thread, where /proc/net would follow the process.
	statistics = "/proc/thread-self/net/stat/nf_conntrack"
)

// Table is the connection-tracking table of a namespace.
type Table struct {
	Count int64 // entries now
	Max   int64 // the limit, the same for each namespace
	// TimeoutSeconds is by conntrack's own name of the TCP state: time_wait,
	// established. Its TIME_WAIT is not that of the TCP stack.
	TimeoutSeconds map[string]int64
	// Counters are the sums over CPUs, by the column names of
	// /proc/net/stat/nf_conntrack: insert_failed, drop, early_drop, invalid.
	Counters map[string]uint64
}

// states are those whose time-outs are read.
var states = timedStates()

func timedStates() (names []string) {
	for _, s := range setting.All() {
		if state, timeout := setting.TrackedState(s.Name); timeout && s.Read {
			names = append(names, state)
		}
	}
	return names
}

// Read returns the table of the namespace that the calling thread is in; the
// goroutine must be locked to it. The table is nil, without an error, where the
// kernel tracks no connections. Where time-outs or counters fail, the rest comes
// with the error.
func Read() (*Table, error) {
	table, err := read()
	if err != nil {
		err = fmt.Errorf("read conntrack: %w", err)
	}
	return table, err
}

func read() (*Table, error) {
	// A name in an open directory costs a third of a path, where there are hundreds of
	// namespaces: see sysctl.
	dir, err := unix.Open(settings, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Told from a /proc that is not there.
		_, missing := os.Stat("/proc/sys/net")
		return nil, missing
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: settings, Err: err}
	}
	defer unix.Close(dir)
	count, err := number(dir, "count")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	limit, err2 := number(dir, "max")
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}

	table := &Table{Count: count, Max: limit, TimeoutSeconds: make(map[string]int64, len(states))}
	var problems []error
	for _, state := range states {
		switch seconds, err := number(dir, "tcp_timeout_"+state); {
		case err == nil:
			table.TimeoutSeconds[state] = seconds
		case !errors.Is(err, fs.ErrNotExist):
			problems = append(problems, err)
		}
	}
	table.Counters, err = readCounters()
	return table, errors.Join(append(problems, err)...)
}

// number reads a setting of one number. It does without os.File, which asks the
// poller about each file that it opens: with hundreds of namespaces there are
// thousands of them.
func number(dir int, name string) (int64, error) {
	name = "nf_conntrack_" + name
	path := settings + "/" + name
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var buf [32]byte
	length, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(buf[:length])), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// readCounters returns nil where the kernel was built without the file
// (CONFIG_NF_CONNTRACK_PROCFS).
func readCounters() (map[string]uint64, error) {
	text, err := os.ReadFile(statistics)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseCounters(text)
}

// ParseCounters sums /proc/net/stat/nf_conntrack over its CPUs: a line of names,
// then a line of hexadecimal numbers for each CPU (ct_cpu_seq_show of
// net/netfilter/nf_conntrack_standalone.c). The column entries is left out: each CPU
// repeats the same total in it.
func ParseCounters(text []byte) (map[string]uint64, error) {
	header, rows, _ := bytes.Cut(text, []byte("\n"))
	names := bytes.Fields(header)
	if len(names) == 0 {
		return nil, errors.New("parse nf_conntrack: no names")
	}
	sums := make(map[string]uint64, len(names))
	for row := range bytes.Lines(rows) {
		values := bytes.Fields(row)
		if len(values) != len(names) {
			return nil, fmt.Errorf("parse nf_conntrack: %d values for %d names", len(values), len(names))
		}
		for i, name := range names {
			if string(name) == "entries" {
				continue
			}
			n, err := strconv.ParseUint(string(values[i]), 16, 64)
			if err != nil {
				return nil, fmt.Errorf("parse nf_conntrack: %s: %w", name, err)
			}
			sums[string(name)] += n
		}
	}
	return sums, nil
}
