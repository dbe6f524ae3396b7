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

// Below the proc file system.
const (
	settings = "/sys/net/netfilter"
	// statistics follows the thread, where /proc/net would follow the process.
	statistics = "/thread-self/net/stat/nf_conntrack"
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

// File is the table of one namespace, of which what counts is held open: it tells of the
// namespace of the thread that opened it, whichever thread reads it.
type File struct {
	count      number
	statistics int   // -1 for a kernel without them
	limits     Table // Max and TimeoutSeconds
	problem    error
}

// Open opens the table of the namespace that the calling thread is in, and reads its limit and
// time-outs; the goroutine must be locked to its thread. It is nil, without an error, where the
// kernel tracks no connections.
func Open(proc string) (*File, error) {
	f, err := openFile(proc)
	if err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	return f, nil
}

func openFile(proc string) (*File, error) {
	// A name in an open directory costs a third of a path, where there are hundreds of
	// namespaces: see sysctl.
	dir := directory{path: proc + settings}
	var err error
	dir.fd, err = unix.Open(dir.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Told from a /proc that is not there.
		_, missing := os.Stat(proc + "/sys/net")
		return nil, missing
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir.path, Err: err}
	}
	defer unix.Close(dir.fd)
	f := &File{}
	f.count, err = dir.open("count")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if f.limits.Max, err = dir.number("max"); err != nil {
		unix.Close(f.count.fd)
		return nil, err
	}
	f.limits.TimeoutSeconds = make(map[string]int64, len(states))
	var problems []error
	for _, state := range states {
		switch seconds, err := dir.number("tcp_timeout_" + state); {
		case err == nil:
			f.limits.TimeoutSeconds[state] = seconds
		case !errors.Is(err, fs.ErrNotExist):
			problems = append(problems, err)
		}
	}
	// The file is missing where the kernel was built without CONFIG_NF_CONNTRACK_PROCFS.
	f.statistics, err = unix.Open(proc+statistics, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, &fs.PathError{Op: "open", Path: proc + statistics, Err: err})
	}
	f.problem = errors.Join(problems...)
	return f, nil
}

// Close closes it.
func (f *File) Close() {
	unix.Close(f.count.fd)
	if f.statistics >= 0 {
		unix.Close(f.statistics)
	}
}

// Read returns the table as it is now, with the limit and the time-outs as they were when it
// was opened. Where time-outs or counters fail, the rest comes with the error.
func (f *File) Read() (*Table, error) {
	table := f.limits
	var err error
	if table.Count, err = f.count.read(); err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	table.Counters, err = f.readCounters()
	if err = errors.Join(f.problem, err); err != nil {
		err = fmt.Errorf("read conntrack: %w", err)
	}
	return &table, err
}

// directory is an open one, of settings of one number. They are read without os.File, which
// asks the poller about each file that it opens: with hundreds of namespaces there are
// thousands of them.
type directory struct {
	fd   int
	path string
}

func (d directory) open(name string) (number, error) {
	n := number{path: d.path + "/nf_conntrack_" + name}
	var err error
	if n.fd, err = unix.Openat(d.fd, "nf_conntrack_"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return n, &fs.PathError{Op: "open", Path: n.path, Err: err}
	}
	return n, nil
}

func (d directory) number(name string) (int64, error) {
	n, err := d.open(name)
	if err != nil {
		return 0, err
	}
	defer unix.Close(n.fd)
	return n.read()
}

// number is an open setting.
type number struct {
	fd   int
	path string
}

func (n number) read() (int64, error) {
	var buf [32]byte
	length, err := unix.Pread(n.fd, buf[:], 0)
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: n.path, Err: err}
	}
	value, err := strconv.ParseInt(string(bytes.TrimSpace(buf[:length])), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", n.path, err)
	}
	return value, nil
}

// readCounters returns nil where there is no such file.
func (f *File) readCounters() (map[string]uint64, error) {
	if f.statistics < 0 {
		return nil, nil
	}
	var text []byte
	for buf := make([]byte, 32<<10); ; {
		n, err := unix.Pread(f.statistics, buf, int64(len(text)))
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: statistics, Err: err}
		}
		if n == 0 {
			return ParseCounters(text)
		}
		text = append(text, buf[:n]...)
	}
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
