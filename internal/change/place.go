package change

import (
	"errors"
	"fmt"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/sysctl"
	"linger/internal/plan"
)

// errGone means that nothing leads to a namespace any more: no process, no name.
var errGone = errors.New("the network namespace is gone")

// open finds the namespace of a scope, by its cookie: the inode number may have been
// used again, and so may the path. Own tells whether it is the caller's.
func open(s plan.Scope) (h *netns.Handle, own bool, err error) {
	current, err := netns.Current()
	if err != nil {
		return nil, false, err
	}
	if is, err := isPlace(current, s); err != nil || is {
		return current, true, err
	}
	current.Close()
	paths := []string{}
	if s.Path != "" {
		paths = append(paths, s.Path)
	}
	all, _ := netns.Discover("/proc", "/run")
	for _, other := range all {
		if other.Inode == s.Inode {
			paths = append(paths, other.Path)
		}
	}
	again := false
	for _, path := range paths {
		h, err := netns.Open(path)
		if err != nil {
			continue // it ended, or is something else by now
		}
		is, err := isPlace(h, s)
		if err != nil || is {
			return h, false, err
		}
		again = again || h.Inode() == s.Inode
		h.Close()
	}
	if again {
		return nil, false, fmt.Errorf("%s: %w: another one has its inode number %d now", s, errGone, s.Inode)
	}
	return nil, false, fmt.Errorf("%s: %w (cookie %d)", s, errGone, s.Cookie)
}

func isPlace(h *netns.Handle, s plan.Scope) (bool, error) {
	cookie, err := h.Cookie()
	if errors.Is(err, errors.ErrUnsupported) && s.Cookie == 0 {
		return h.Inode() == s.Inode, nil
	}
	return cookie == s.Cookie, err
}

// read is the present value of a change's key at its place.
func read(h *netns.Handle, key string) (value string, err error) {
	err = h.Do(func() error {
		value, err = sysctl.Read(key)
		return err
	})
	return value, err
}

// write sets a key and reads it back: the kernel takes some values otherwise than
// they were written.
func write(h *netns.Handle, key, value string) error {
	return h.Do(func() error {
		step("before " + key)
		if err := sysctl.Write(key, value); err != nil {
			return err
		}
		step("after " + key)
		now, err := sysctl.Read(key)
		if err == nil && !plan.Same(now, value) {
			err = fmt.Errorf("%s: wrote %q and read back %q", key, value, now)
		}
		return err
	})
}

// step is told of each moment at which the process may die; only tests listen.
var step = func(string) {}
