// Package process knows which processes own sockets, and what each process is: its
// command, container, pod and limits. It refuses to read what a process keeps in
// its memory, arguments or environment.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree is a mounted proc file system, normally /proc. Its methods may be called by
// several goroutines.
type Tree string

// Label names a process without a look at its descriptors.
type Label struct {
	PID       int
	Comm      string // /proc/PID/comm: at most 15 bytes, chosen by the process
	Container string // the first 12 digits of its id, empty outside of a container
	Pod       string // the pod's uid, empty outside of a pod
}

// Process is what /proc tells of a process.
type Process struct {
	Label
	// Started is in seconds since the epoch, exact to about a second; 0 if unknown.
	Started int64
	// Descriptors in use and the soft RLIMIT_NOFILE; nil where not readable, which for
	// another user's process needs root, and where there is no limit.
	Descriptors     *int64
	DescriptorLimit *int64
	// Netns is the inode of the process's network namespace, 0 where not readable.
	Netns uint64
}

// Label reads the command, container and pod of a process. It fails with
// fs.ErrNotExist or unix.ESRCH when the process is gone.
func (t Tree) Label(pid int) (Label, error) {
	comm, err := os.ReadFile(t.file(pid, "comm"))
	if err != nil {
		return Label{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	l := Label{PID: pid, Comm: string(bytes.TrimSuffix(comm, []byte("\n")))}
	// A kernel without cgroups has no such file, and then no containers.
	if text, err := os.ReadFile(t.file(pid, "cgroup")); err == nil {
		l.Container, l.Pod = ParseCgroup(text)
	}
	return l, nil
}

// Process reads all that is known of a process. It fails like Label; a detail that
// cannot be read is left out.
func (t Tree) Process(pid int) (Process, error) {
	boot, _ := t.bootTime() // without it, the start is not known
	return t.describe(pid, boot)
}

func (t Tree) describe(pid int, boot int64) (Process, error) {
	label, err := t.Label(pid)
	if err != nil {
		return Process{}, err
	}
	p := Process{Label: label}
	if boot != 0 {
		p.Started = t.started(pid, boot)
	}
	if n, err := t.descriptors(pid); err == nil {
		p.Descriptors = &n
	}
	if text, err := os.ReadFile(t.file(pid, "limits")); err == nil {
		p.DescriptorLimit = descriptorLimit(text)
	}
	if link, err := os.Readlink(t.file(pid, "ns/net")); err == nil {
		p.Netns, _ = inode([]byte(link), "net:[")
	}
	return p, nil
}

func (t Tree) file(pid int, name string) string {
	return string(t) + "/" + strconv.Itoa(pid) + "/" + name
}

// descriptors counts the open descriptors of a process: the size of its fd directory
// says it from 6.2 on (proc_fd_getattr of fs/proc/fd.c), and is 0 before.
func (t Tree) descriptors(pid int) (int64, error) {
	path := t.file(pid, "fd")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	if st.Size > 0 {
		return st.Size, nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return int64(len(names)), err
}

// descriptorLimit is the soft limit of the line "Max open files" of /proc/PID/limits
// (proc_pid_limits of fs/proc/base.c), nil where it is unlimited.
func descriptorLimit(text []byte) *int64 {
	for line := range bytes.Lines(text) {
		columns, ok := bytes.CutPrefix(line, []byte("Max open files"))
		if !ok {
			continue
		}
		if values := bytes.Fields(columns); len(values) > 0 {
			if n, err := strconv.ParseInt(string(values[0]), 10, 64); err == nil {
				return &n
			}
		}
		break
	}
	return nil
}

// ticksPerSecond is USER_HZ of include/asm-generic/param.h: the unit of the times in
// /proc/PID/stat on every architecture that Go runs on, whatever HZ is.
const ticksPerSecond = 100

// started is the start of a process in seconds since the epoch, 0 if unknown.
func (t Tree) started(pid int, boot int64) int64 {
	text, err := os.ReadFile(t.file(pid, "stat"))
	if err != nil {
		return 0
	}
	ticks, err := strconv.ParseInt(string(statField(text, 22)), 10, 64)
	if err != nil {
		return 0
	}
	return boot + ticks/ticksPerSecond
}

// kernelThread tells whether a process is the kernel's own: PF_KTHREAD of
// include/linux/sched.h in its flags. Its stat file is open to everybody.
func (t Tree) kernelThread(pid int) bool {
	const flag = 0x00200000
	text, err := os.ReadFile(t.file(pid, "stat"))
	if err != nil {
		return false
	}
	flags, err := strconv.ParseUint(string(statField(text, 9)), 10, 64)
	return err == nil && flags&flag != 0
}

// statField is a field of /proc/PID/stat by its number in proc(5), from 3 on. The
// second, the command, may hold blanks and brackets, so counting begins after its
// last bracket.
func statField(text []byte, number int) []byte {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if number -= 3; number < 0 || number >= len(fields) {
		return nil
	}
	return fields[number]
}

// bootTime is when the host booted, in seconds since the epoch: btime of /proc/stat.
func (t Tree) bootTime() (int64, error) {
	text, err := os.ReadFile(string(t) + "/stat")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, errors.New("/proc/stat has no btime")
}

// inode parses the target of a link such as socket:[1234], given "socket:[".
func inode(link []byte, prefix string) (uint64, bool) {
	digits, ok := bytes.CutPrefix(link, []byte(prefix))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("]"))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, err == nil
}
