package netns

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Found is a network namespace that a process is in or that has a name.
type Found struct {
	Inode uint64
	// Path opens the namespace: the file under /run/netns where there is one, else
	// that of the process PID.
	Path string
	// Name is that of the file under /run/netns, the first in order where there are
	// several, empty where there is none.
	Name string
	// PID is the lowest of the processes inside, 0 where there is none.
	PID       int
	Processes int
}

// namedDirs are where ip-netns(8) keeps named namespaces, given where /run lies. The second is
// a link to the first almost everywhere.
func namedDirs(run string) []string {
	return []string{filepath.Join(run, "netns"), filepath.Join(run, "../var/run/netns")}
}

// Discover finds the network namespace of every process and every named one. A
// process counts with the namespace of its main thread: threads that went
// elsewhere by themselves are not looked for. The namespaces are in order of
// their lowest process, those without a process last.
//
// What could not be read is named in problems and does not hinder the rest; those
// of processes that the caller may not look at are counted in one problem, which
// is fs.ErrPermission. It takes CAP_SYS_PTRACE, or the same user and no more
// capabilities than the caller (ptrace_may_access of kernel/ptrace.c).
//
// It opens no namespace: what is found may be none that Open takes.
func Discover(procRoot, run string) (found []Found, problems []error) {
	return discoverIn(procRoot, namedDirs(run))
}

func discoverIn(procRoot string, dirs []string) (found []Found, problems []error) {
	byInode := map[uint64]*Found{}
	if err := addProcesses(byInode, procRoot); err != nil {
		problems = append(problems, err)
	}
	var seen []fs.FileInfo
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, fmt.Errorf("named network namespaces: %w", err))
			}
			continue
		}
		if slices.ContainsFunc(seen, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
			continue
		}
		seen = append(seen, info)
		problems = append(problems, addNamed(byInode, dir)...)
	}
	for _, f := range slices.SortedFunc(maps.Values(byInode), byProcess) {
		found = append(found, *f)
	}
	return found, problems
}

func byProcess(a, b *Found) int {
	switch {
	case a.PID == 0 && b.PID != 0:
		return 1
	case a.PID != 0 && b.PID == 0:
		return -1
	}
	return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Inode, b.Inode))
}

// addProcesses reads one link for each process: opening the namespaces of all of
// them would cost several times as much.
func addProcesses(byInode map[uint64]*Found, procRoot string) error {
	proc, err := os.Open(procRoot)
	if err != nil {
		return fmt.Errorf("network namespaces of processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("network namespaces of processes: %w", err)
	}

	denied := 0
	link := make([]byte, 64)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := unix.Readlinkat(int(proc.Fd()), name+"/ns/net", link)
		switch {
		case errors.Is(err, fs.ErrPermission):
			if !isKernelThread(procRoot, name) {
				denied++
			}
			continue
		case err != nil:
			continue // the process has ended
		}
		inode, ok := inodeOfLink(string(link[:n]))
		if !ok {
			continue
		}
		f := byInode[inode]
		if f == nil {
			f = &Found{Inode: inode}
			byInode[inode] = f
		}
		f.Processes++
		if f.PID == 0 || pid < f.PID {
			f.PID = pid
			f.Path = filepath.Join(procRoot, name, "ns/net")
		}
	}
	if denied > 0 {
		return fmt.Errorf("network namespaces of some processes (%d): %w", denied, unix.EACCES)
	}
	return nil
}

// isKernelThread goes by what proc_pid_cmdline(5) says: the file is readable to
// all, and empty for a kernel thread and for a process that is already dead.
func isKernelThread(procRoot, pid string) bool {
	cmdline, err := os.ReadFile(filepath.Join(procRoot, pid, "cmdline"))
	return err == nil && len(cmdline) == 0
}

// inodeOfLink reads the text of the link /proc/PID/ns/net: net:[4026531840].
func inodeOfLink(link string) (uint64, bool) {
	rest, ok := strings.CutPrefix(link, "net:[")
	if !ok {
		return 0, false
	}
	number, ok := strings.CutSuffix(rest, "]")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(number, 10, 64)
	return inode, err == nil
}

func addNamed(byInode map[uint64]*Found, dir string) (problems []error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []error{fmt.Errorf("named network namespaces: %w", err)}
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		inode, err := InodeAt(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("open network namespace %s: %w", path, err))
			continue
		}
		f := byInode[inode]
		if f == nil {
			f = &Found{Inode: inode}
			byInode[inode] = f
		}
		if f.Name == "" {
			f.Name, f.Path = entry.Name(), path
		}
	}
	return problems
}
