package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/process"
	"linger/internal/kernel/timewait"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
)

// Roots are where a host's files lie: its own, or those of a tree that stands in for it. An
// empty one is that of this host.
type Roots struct {
	Proc string // the proc file system, /proc
	Run  string // /run, for the named namespaces
	Disk string // /, below which are the files that set sysctls at the next boot
}

func (r Roots) orDefault() Roots {
	return Roots{Proc: cmp.Or(r.Proc, "/proc"), Run: cmp.Or(r.Run, "/run"), Disk: cmp.Or(r.Disk, "/")}
}

// Session reads a host again and again. What each reading needs stays open from one to the next:
// a namespace is opened once, when it is first found, and let go of when it is found no more;
// until then it lives, even if it was deleted. It is not for several goroutines at once.
type Session struct {
	options Options
	roots   Roots
	proc    process.Tree

	ownInode, hostInode uint64 // hostInode is 0 if unknown
	doors               []*door
	openings            int // of namespaces
	// keepFiles is false where the files of all namespaces would come near to the limit of open
	// files: then they are opened for each reading.
	keepFiles bool
	fresh     bool // the doors are those of Open, and no reading was made since
	// What is told as a gap by each reading: of finding the namespaces, and of attaching the
	// tracer.
	findGaps, traceGaps []gap

	boot     bootFiles
	iterator iterator
	trace    *Trace // nil where nothing is traced
	// lastIndex is that of the reading before, and lastDoors are its namespaces; nil where there
	// was none.
	lastIndex *group.Index
	lastDoors []*door
	// before are the counters of the reading before, nil where there was none.
	before    *snapshot.Snapshot
	sightings *sightings
}

// gap is something that could not be read, found out before the reading that tells it.
type gap struct {
	netns, what, needs string
	cause              error
}

// Open finds the namespaces that the options name, opens them, and attaches the tracer where
// Options.Trace is set. Options.Window is for Collect alone. The error is ErrUnknownNamespace, or
// that no chosen namespace could be read.
func Open(ctx context.Context, o Options) (*Session, error) {
	s := &Session{options: o, roots: o.Roots.orDefault(), fresh: true, sightings: newSightings()}
	s.proc = process.Tree(s.roots.Proc)
	own, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoNamespace, err)
	}
	s.ownInode = own.Inode()
	own.Close()
	s.hostInode = s.findHost()
	missing, err := s.find()
	err = cmp.Or(missing, err)
	if err == nil && o.Trace > 0 {
		err = s.attachTracer(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close lets go of all namespaces and ends the tracing.
func (s *Session) Close() error {
	s.letGo()
	err := s.iterator.close()
	if s.trace != nil {
		err = errors.Join(err, s.trace.Close())
	}
	return err
}

// letGo closes all namespaces; the next reading opens them anew.
func (s *Session) letGo() {
	for _, d := range s.doors {
		d.close()
	}
	s.doors = nil
}

// find looks for the namespaces that there are now, opens those that are new and closes those
// that are gone. It tells which names mean none, and fails where no namespace is left.
func (s *Session) find() (missing, err error) {
	chosen, gaps, missing := s.choose(s.options.Netns)
	known := map[uint64]*door{}
	for _, d := range s.doors {
		known[d.handle.Inode()] = d
	}
	var doors []*door
	problems := []error{missing}
	for _, f := range chosen {
		d := known[f.Inode]
		if d == nil {
			switch d, err = s.openDoor(f); {
			case errors.Is(err, fs.ErrNotExist): // gone again
				problems = append(problems, err)
				continue
			case err != nil:
				needs := needsRights("CAP_SYS_ADMIN")
				gaps = append(gaps, gap{f.Path, "the whole namespace", needs, err})
				problems = append(problems, fmt.Errorf("%s: %w (needs %s)", f.Path, err, needs))
				continue
			}
			// The process that led there may have gone elsewhere since, or to another's number.
			if other := known[d.handle.Inode()]; other != nil || slices.ContainsFunc(doors, d.isSame) {
				d.close()
				continue
			}
		}
		d.found = f
		doors = append(doors, d)
	}
	for _, d := range s.doors {
		if !slices.Contains(doors, d) {
			d.close()
		}
	}
	s.doors, s.findGaps = doors, gaps
	s.keepFiles = filesFit(len(doors))
	if len(doors) == 0 {
		return missing, fmt.Errorf("%w: %w", errNoNamespace, errors.Join(problems...))
	}
	return missing, nil
}

// filesOfDoor is how many files a namespace takes at most: its own, a connection to sock_diag,
// those of /proc/net and those of connection tracking.
const filesOfDoor = 8

// filesFit tells whether the files of so many namespaces take less than half of those that this
// process may open.
func filesFit(namespaces int) bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && uint64(2*filesOfDoor*namespaces) < limit.Cur
}

// choose finds the namespaces with these names, each once; no name means all. The error is that
// of the first name that means none.
func (s *Session) choose(names []string) (chosen []netns.Found, gaps []gap, missing error) {
	found, problems := netns.Discover(s.roots.Proc, s.roots.Run)
	all := len(names) == 0
	for _, name := range names {
		if name == "all" {
			all = true
			continue
		}
		one, err := s.roots.resolve(found, name)
		if err != nil {
			missing = cmp.Or(missing, err)
			continue
		}
		chosen = append(chosen, one)
	}
	if all {
		chosen = append(chosen, found...)
		chosen = append(chosen, netns.Found{Inode: s.ownInode, Path: s.roots.Proc + "/thread-self/ns/net"})
		for _, problem := range problems {
			gaps = append(gaps, gap{"", "some network namespaces", needsRights("CAP_SYS_PTRACE"), problem})
		}
		if s.processesHidden() {
			gaps = append(gaps, gap{"", "some network namespaces", "a /proc that shows all processes (no hidepid)",
				errors.New("/proc lists only some of the processes")})
		}
	}
	seen := map[uint64]bool{}
	return slices.DeleteFunc(chosen, func(f netns.Found) bool {
		again := seen[f.Inode]
		seen[f.Inode] = true
		return again
	}), gaps, missing
}

// Locate is the path of the namespace that a name means: under /run/netns, of a
// process, or a path itself.
func Locate(name string) (string, error) {
	found, err := Roots{}.orDefault().resolve(nil, name)
	return found.Path, err
}

// resolve finds one namespace by its name under /run/netns, by a process in it,
// or by the path of its file.
func (r Roots) resolve(found []netns.Found, name string) (netns.Found, error) {
	path := filepath.Join(r.Run, "netns", name)
	if strings.Contains(name, "/") {
		path = name
	} else if _, err := os.Stat(path); err != nil {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return netns.Found{}, fmt.Errorf("%w: %s is no name under /run/netns, no process id and no path", ErrUnknownNamespace, name)
		}
		path = fmt.Sprintf("%s/%d/ns/net", r.Proc, pid)
	}
	inode, err := netns.InodeAt(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace):
		return netns.Found{}, fmt.Errorf("%w: %s: %w", ErrUnknownNamespace, name, err)
	case err != nil:
		return netns.Found{}, fmt.Errorf("%w: %s: %w (needs %s)", errNoNamespace, name, err, needsRights("CAP_SYS_PTRACE"))
	}
	for _, f := range found {
		if f.Inode == inode {
			return f, nil
		}
	}
	return netns.Found{Inode: inode, Path: path}, nil
}

// needsRights is what closes a gap that the kernel's checks of rights made: to look
// at a process takes CAP_SYS_PTRACE, to enter a namespace CAP_SYS_ADMIN.
func needsRights(capability string) string {
	if os.Geteuid() == 0 {
		return capability + ", which this root lacks there"
	}
	return "root"
}

// processesHidden tells whether /proc leaves out the processes of others, as it
// does when it is mounted with hidepid=2 (proc(5)): then it lacks the first of all.
func (s *Session) processesHidden() bool {
	_, err := os.Stat(s.roots.Proc + "/1")
	return errors.Is(err, fs.ErrNotExist)
}

// iterator is loaded when it is first asked for.
type iterator struct {
	loaded *timewait.Iterator
	err    error
}

func (i *iterator) load() (*timewait.Iterator, error) {
	if i.loaded == nil && i.err == nil {
		i.loaded, i.err = timewait.Load()
	}
	return i.loaded, i.err
}

func (i *iterator) close() error {
	if i.loaded == nil {
		return nil
	}
	return i.loaded.Close()
}
