package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// leftover is how everything is named that can outlive the laboratory's process: a
// control group, a directory. The number of the process follows.
const leftover = "linger-lab-"

var serial atomic.Int64

// ownName is a name that no other laboratory has.
func ownName() string { return fmt.Sprintf("%s%d-%d", leftover, os.Getpid(), serial.Add(1)) }

// cgroupRoots are where the cpu controller is: of version 2, and of version 1
// (cgroups(7)).
var cgroupRoots = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}

// throttle keeps a process to a share of one CPU, in percent and for as long as the
// trial stands, in a control group of its own. The error is errors.ErrUnsupported
// where there is no cpu controller to make one with.
func (t *Trial) throttle(pid int, percent float64) error {
	const period = 100_000 // µs, the kernel's default
	quota := int(percent / 100 * period)
	for _, root := range cgroupRoots {
		dir := filepath.Join(root, ownName())
		var settings [][2]string
		if enabled, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control")); err == nil {
			if !strings.Contains(" "+strings.TrimSpace(string(enabled))+" ", " cpu ") {
				continue
			}
			settings = [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, period)}}
		} else if _, err := os.Stat(filepath.Join(root, "cpu.cfs_quota_us")); err == nil || exists(filepath.Join(root, "cpu.cfs_period_us")) {
			settings = [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", strconv.Itoa(quota)}}
		} else {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		t.Defer(func() error { return os.Remove(dir) })
		for _, s := range append(settings, [2]string{"cgroup.procs", strconv.Itoa(pid)}) {
			if err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0); err != nil {
				return fmt.Errorf("control group: %w", err)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: no cpu controller in which a control group can be made", errors.ErrUnsupported)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Sweep removes what laboratories left that were killed: control groups and
// directories with the number of a process that is no more. Namespaces and processes
// need none: they go by themselves.
func Sweep() error {
	var errs []error
	for _, root := range append(cgroupRoots, os.TempDir()) {
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
				remove = os.Remove // a control group's files cannot be removed
			}
			if err := remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
