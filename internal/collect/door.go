package collect

import (
	"context"
	"time"

	"linger/internal/kernel/conntrack"
	"linger/internal/kernel/netns"
	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sockdiag"
	"linger/internal/kernel/sysctl"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// freshFor is how long it is believed what rarely changes and costs much to read where there are
// hundreds of namespaces: settings, the limits of connection tracking, and what a namespace
// belongs to.
const freshFor = 10 * time.Second

// door is a namespace that is held open.
type door struct {
	found  netns.Found // as it was found last
	own    bool        // it is linger's
	handle *netns.Handle
	cookie uint64 // 0 where the kernel has none

	sockets *sockdiag.Conn  // nil until it is first asked for
	files   *procnet.Files  // nil where they are not open
	tracked *conntrack.File // nil where the kernel tracks no connections

	walked *walk // nil where it is of no use

	// What was read at a time, and what could not be.
	readAt   time.Time
	settings snapshot.Settings
	gaps     []gap
	label    snapshot.Label
	labelPID int
}

// openDoor opens a namespace that is new.
func (s *Session) openDoor(f netns.Found) (*door, error) {
	d := &door{own: f.Inode == s.ownInode}
	var err error
	if d.own {
		d.handle, err = netns.Current()
	} else {
		d.handle, err = netns.Open(f.Path)
	}
	if err != nil {
		return nil, err
	}
	s.openings++
	return d, nil
}

func (d *door) isSame(other *door) bool { return d.handle.Inode() == other.handle.Inode() }

func (d *door) close() {
	d.closeFiles()
	d.closeSockets()
	d.handle.Close()
}

func (d *door) closeFiles() {
	if d.files != nil {
		d.files.Close()
		d.files = nil
	}
	if d.tracked != nil {
		d.tracked.Close()
		d.tracked = nil
	}
}

func (d *door) closeSockets() {
	if d.sockets != nil {
		d.sockets.Close()
		d.sockets = nil
	}
}

// openFiles opens what is read each time, and reads what is believed for some time. It runs on a
// thread that is in the namespace.
func (d *door) openFiles(proc string, now time.Time) {
	d.closeFiles()
	d.readAt, d.gaps = now, nil
	problem := func(what, needs string, err error) {
		if err != nil {
			d.gaps = append(d.gaps, gap{what: what, needs: needs, cause: err})
		}
	}
	var err error
	d.cookie, err = d.handle.Cookie()
	problem("the namespace's cookie", "kernel 5.14", err)
	d.files = procnet.Open(proc)
	d.settings, err = sysctl.Proc(proc).ReadAll(sysctl.PerNamespace)
	problem("some sysctls", "a mounted and readable /proc/sys", err)
	d.tracked, err = conntrack.Open(proc)
	problem("connection tracking", "a mounted and readable /proc/sys", err)
}

// dump asks for sockets of the namespace, by a connection that stays open.
func (d *door) dump(ctx context.Context, request sockdiag.Request, visit func(*tcp.Socket)) error {
	if d.sockets == nil {
		// To enter a namespace from within takes no rights, as Dial would want for a descriptor.
		err := d.handle.Do(func() (err error) {
			d.sockets, err = sockdiag.Dial(0)
			return err
		})
		if err != nil {
			return err
		}
	}
	err := d.sockets.Dump(ctx, request, visit)
	if err != nil {
		d.closeSockets() // the rest of the answer may still be in it
	}
	return err
}
