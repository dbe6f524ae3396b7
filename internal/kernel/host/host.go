// Package host reads what all network namespaces of a host share: its name, kernel,
// processors, memory, load and pressure. It refuses what belongs to a namespace.
package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Host is one reading. A nil field, and an empty text, could not be read.
type Host struct {
	Name   string // of the UTS namespace that the caller is in
	Kernel string // as uname -r prints it
	BootID string // new with each boot
	CPUs   int    // that this process may use

	Memory *Memory
	Load   *Load
	// Pressure is by resource: cpu, memory, io. A resource is absent where the
	// kernel has no pressure stall information or has it switched off.
	Pressure map[string]Pressure
}

// Memory is of /proc/meminfo, in bytes.
type Memory struct {
	Total     uint64
	Available uint64
}

// Load is the load average over 1, 5 and 15 minutes.
type Load struct {
	One, Five, Fifteen float64
}

// Pressure is the share of time, in percent over the last 10 s, in which some or
// all tasks waited for a resource (Documentation/accounting/psi.rst). Full is 0
// where the kernel does not report it: for cpu before 5.13.
type Pressure struct {
	Some float64
	Full float64
}

// Read reads the host from a proc file system, normally /proc. Each part is read on
// its own: what failed is named in the joined error, the rest is returned.
func Read(proc string) (Host, error) {
	h := Host{CPUs: runtime.NumCPU()}
	var problems []error
	failed := func(what string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("read %s: %w", what, err))
		}
	}

	var err error
	h.Name, err = os.Hostname()
	failed("host name", err)
	h.Kernel, err = release()
	failed("kernel release", err)
	id, err := os.ReadFile(proc + "/sys/kernel/random/boot_id")
	h.BootID = string(bytes.TrimSpace(id))
	failed("boot id", err)

	tree, err := procfs.NewFS(proc)
	if err != nil {
		failed("memory, load and pressure", err)
		return h, errors.Join(problems...)
	}
	h.Memory, err = memoryOf(tree)
	failed("memory", err)
	load, err := tree.LoadAvg()
	failed("load", err)
	if err == nil {
		h.Load = &Load{One: load.Load1, Five: load.Load5, Fifteen: load.Load15}
	}
	for _, resource := range []string{"cpu", "memory", "io"} {
		p, err := pressureOn(tree, resource)
		failed(resource+" pressure", err)
		if p == nil {
			continue
		}
		if h.Pressure == nil {
			h.Pressure = map[string]Pressure{}
		}
		h.Pressure[resource] = *p
	}
	return h, errors.Join(problems...)
}

func release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

func memoryOf(tree procfs.FS) (*Memory, error) {
	info, err := tree.Meminfo()
	if err != nil {
		return nil, err
	}
	// MemAvailable came with 3.14.
	if info.MemTotalBytes == nil || info.MemAvailableBytes == nil {
		return nil, errors.New("meminfo lacks MemTotal or MemAvailable")
	}
	return &Memory{Total: *info.MemTotalBytes, Available: *info.MemAvailableBytes}, nil
}

// pressureOn returns nil where the kernel has none: no file before 4.20 or without
// CONFIG_PSI, EOPNOTSUPP when it was not switched on at boot (kernel/sched/psi.c).
func pressureOn(tree procfs.FS, resource string) (*Pressure, error) {
	stats, err := tree.PSIStatsForResource(resource)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &Pressure{}
	if stats.Some != nil {
		p.Some = stats.Some.Avg10
	}
	if stats.Full != nil {
		p.Full = stats.Full.Avg10
	}
	return p, nil
}
