package collect

import (
	"fmt"
	"os"

	"linger/internal/kernel/netns"
	"linger/internal/snapshot"
)

// labelOf names a namespace by the best that is known of it.
func (s *Session) labelOf(d *door) snapshot.Label {
	pid := d.found.PID
	if d.own && pid == 0 {
		pid = os.Getpid()
	}
	p, err := s.proc.Label(pid)
	switch {
	case d.handle.Inode() == s.hostInode && s.hostInode != 0:
		return snapshot.Label{Kind: snapshot.LabelHost, Name: "host"}
	case err == nil && p.Pod != "":
		return snapshot.Label{Kind: snapshot.LabelPod, Name: p.Pod}
	case err == nil && p.Container != "":
		return snapshot.Label{Kind: snapshot.LabelContainer, Name: p.Container}
	case d.found.Name != "":
		return snapshot.Label{Kind: snapshot.LabelNamed, Name: d.found.Name}
	case d.own && !s.initialPIDs():
		// A container that hides its name from within.
		name, _ := os.Hostname()
		return snapshot.Label{Kind: snapshot.LabelContainer, Name: name}
	case d.own && s.hostInode == 0:
		// Without root nobody else's namespace shows; this process is no container's.
		return snapshot.Label{Kind: snapshot.LabelHost, Name: "host"}
	case err == nil:
		return snapshot.Label{Kind: snapshot.LabelProcess, Name: fmt.Sprintf("%s (pid %d)", p.Comm, pid)}
	default:
		return snapshot.Label{Kind: snapshot.LabelNamed, Name: fmt.Sprintf("net:[%d]", d.handle.Inode())}
	}
}

// findHost finds the namespace that the kernel started with: that of its own
// threads, or else of process 1. It is 0 where neither may be looked at, and in
// a container, whose process 1 is not the host's.
func (s *Session) findHost() uint64 {
	if !s.initialPIDs() {
		return 0
	}
	for _, pid := range []int{2, 1} {
		if inode, err := netns.InodeAt(fmt.Sprintf("%s/%d/ns/net", s.roots.Proc, pid)); err == nil {
			return inode
		}
	}
	return 0
}

// initialPIDs tells whether process ids here are those of the host
// (PROC_PID_INIT_INO of include/linux/proc_ns.h), or it cannot be known.
func (s *Session) initialPIDs() bool {
	link, err := os.Readlink(s.roots.Proc + "/self/ns/pid")
	return err != nil || link == "pid:[4026531836]"
}
