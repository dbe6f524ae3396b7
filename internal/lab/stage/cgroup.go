package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// leftover is how everything is named that can outlive the laboratory's process: a
// control group, a directory. The number of the process follows.
const leftover = "linger-lab-"

var serial atomic.Int64

// ownName is a name that no other laboratory has.
func ownName() string { return fmt.Sprintf("%s%d-%d", leftover, os.Getpid(), serial.Add(1)) }

// cgroupRoots are where a controller may be: in the hierarchy of version 2, and in its
// own of version 1 (cgroups(7)).
func cgroupRoots(controller string) []string {
	const root = "/sys/fs/cgroup"
	roots := []string{root, filepath.Join(root, controller)}
	if controller == "cpu" {
		roots = append(roots, filepath.Join(root, "cpu,cpuacct"))
	}
	return roots
}

// ControlGroup is one of a worker's own. unified tells its version: 2.
type ControlGroup struct {
	dir     string
	unified bool
	worker  *Worker
}

// NewControlGroup puts a worker into a control group of its own. The error is
// errors.ErrUnsupported where there is no such controller to make a group with.
func NewControlGroup(controller string, w *Worker) (ControlGroup, error) {
	for _, root := range cgroupRoots(controller) {
		g := ControlGroup{dir: filepath.Join(root, ownName()), worker: w}
		if enabled, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control")); err == nil {
			g.unified = true
			if !strings.Contains(" "+strings.TrimSpace(string(enabled))+" ", " "+controller+" ") {
				continue
			}
		} else if root == "/sys/fs/cgroup" || !exists(filepath.Join(root, "cgroup.procs")) {
			continue
		}
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			return g, fmt.Errorf("control group: %w", err)
		}
		if err := g.write("cgroup.procs", strconv.Itoa(w.PID())); err != nil {
			return g, errors.Join(err, g.Close())
		}
		return g, nil
	}
	return ControlGroup{}, fmt.Errorf("%w: no %s controller in which a control group can be made", errors.ErrUnsupported, controller)
}

// Close ends the worker, and with it the group.
func (g ControlGroup) Close() error {
	// A group goes when its last process has; one that was Killed says so.
	_ = g.worker.Close()
	return removeGroup(g.dir)
}

func (g ControlGroup) write(file, value string) error {
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return nil
}

// LimitCPU keeps the group to a share of one CPU, in percent.
func (g ControlGroup) LimitCPU(percent float64) error {
	const period = 100_000 // µs, the kernel's default
	quota := strconv.Itoa(int(percent / 100 * period))
	if g.unified {
		return g.write("cpu.max", quota+" "+strconv.Itoa(period))
	}
	return errors.Join(g.write("cpu.cfs_period_us", strconv.Itoa(period)), g.write("cpu.cfs_quota_us", quota))
}

// Throttled is the share of the periods in which the group used up its quota of CPU time
// and had to wait for the next one, in percent.
func (g ControlGroup) Throttled() (float64, error) {
	periods, err := g.number("cpu.stat", "nr_periods")
	if err != nil || periods == 0 {
		return 0, err
	}
	stopped, err := g.number("cpu.stat", "nr_throttled")
	return 100 * stopped / periods, err
}

// LimitMemory keeps the group to so many bytes, without swap.
func (g ControlGroup) LimitMemory(bytes int) error {
	limit, swap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	most, none := strconv.Itoa(bytes), strconv.Itoa(bytes)
	if g.unified {
		limit, swap, none = "memory.max", "memory.swap.max", "0"
	}
	if err := g.write(limit, most); err != nil || !exists(filepath.Join(g.dir, swap)) {
		return err
	}
	return g.write(swap, none)
}

// CountSockets has version 1 count the memory of sockets, which it does where there is
// a limit to it; version 2 always does.
func (g ControlGroup) CountSockets() error {
	if g.unified {
		return nil
	}
	return g.write("memory.kmem.tcp.limit_in_bytes", strconv.Itoa(1<<40))
}

// KernelMemory is what the group is charged for memory of the kernel, and for what is
// in the buffers of sockets, in bytes.
func (g ControlGroup) KernelMemory() (float64, error) {
	if !g.unified {
		own, err := g.number("memory.kmem.usage_in_bytes", "")
		buffers, err2 := g.number("memory.kmem.tcp.usage_in_bytes", "")
		return own + buffers, errors.Join(err, err2)
	}
	own, err := g.number("memory.stat", "kernel")
	if err != nil {
		own, err = g.number("memory.stat", "slab") // before 5.18
	}
	buffers, err2 := g.number("memory.stat", "sock")
	return own + buffers, errors.Join(err, err2)
}

// Killed is how many of the group's processes the kernel has Killed for want of memory.
func (g ControlGroup) Killed() (float64, error) {
	if g.unified {
		return g.number("memory.events", "oom_kill")
	}
	return g.number("memory.oom_control", "oom_kill")
}

// number reads a file that is one number, or has one after a key on a line.
func (g ControlGroup) number(file, key string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, fmt.Errorf("control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if n := len(fields); n > 0 && (key == "" || n == 2 && fields[0] == key) {
			value, err := strconv.ParseFloat(fields[n-1], 64)
			if err != nil {
				return 0, fmt.Errorf("control group: %s: %w", file, err)
			}
			return value, nil
		}
	}
	return 0, fmt.Errorf("control group: %s has no %q", file, key)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removeGroup removes a control group, whose files cannot be removed. The processes of a
// laboratory that has just been Killed may take a moment to notice.
func removeGroup(path string) error {
	for deadline := time.Now().Add(closePatience); ; time.Sleep(20 * time.Millisecond) {
		err := os.Remove(path)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// Sweep removes what laboratories left that were Killed: control groups and
// directories with the number of a process that is no more. Namespaces and processes
// need none: they go by themselves. What belongs to another user is left to that one.
func Sweep() error {
	var errs []error
	for _, root := range append(append(cgroupRoots("cpu"), cgroupRoots("memory")...), os.TempDir()) {
		found, err := filepath.Glob(filepath.Join(root, leftover+"*"))
		if err != nil {
			errs = append(errs, err)
		}
		for _, path := range found {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), leftover), "-")
			if _, err := strconv.Atoi(pid); err != nil || exists("/proc/"+pid) {
				continue
			}
			remove := os.RemoveAll
			if root != os.TempDir() {
				remove = removeGroup
			}
			if err := remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
