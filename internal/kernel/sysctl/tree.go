package sysctl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// directories are where both programs look for files named *.conf, in the order of
// sysctl.d(5) and sysctl(8). Of several files with one name, that of the first
// directory replaces the others.
var directories = []string{
	"/etc/sysctl.d",
	"/run/sysctl.d",
	"/usr/local/lib/sysctl.d",
	"/usr/lib/sysctl.d",
	"/lib/sysctl.d",
}

// tree is a file system of a host: the running one, or one that lies below another
// directory and whose links, absolute ones too, must not lead out of it.
type tree struct {
	root *os.File // nil for the running one
	path string   // of root, empty for the running one
	// planned is a file that is not there yet, and its text; "" for none.
	planned, text string
}

func openTree(root string) (*tree, error) {
	if path.Clean("/"+root) == "/" {
		return &tree{}, nil
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	t := &tree{root: dir}
	if t.path, err = target(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return t, nil
}

func (t *tree) close() {
	if t.root != nil {
		t.root.Close()
	}
}

// open does not wait for the writer of a fifo.
func (t *tree) open(name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	if t.root == nil {
		return os.OpenFile(name, flags, 0)
	}
	how := &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(int(t.root.Fd()), strings.TrimPrefix(name, "/"), how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
			return nil, &fs.PathError{Op: "openat2", Path: name, Err: err}
		}
	}
}

// configuration lists the files in the order in which they are read.
func (t *tree) configuration() (files []string, problems []error) {
	seen := map[string]bool{}
	for _, dir := range directories {
		names, err := t.names(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Errorf("read boot settings: %w", err))
		}
		if t.planned != "" && path.Dir(t.planned) == dir {
			names = append(names, path.Base(t.planned))
		}
		for _, name := range names {
			if strings.HasSuffix(name, ".conf") && !seen[name] {
				seen[name] = true
				files = append(files, path.Join(dir, name))
			}
		}
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(path.Base(a), path.Base(b)) })
	return append(files, sysctlConf), problems
}

func (t *tree) names(dir string) ([]string, error) {
	f, err := t.open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// read returns a file's text and where it really lies. What is no regular file is
// empty: so a link to /dev/null masks the files of the same name, and so does a link
// to nowhere.
func (t *tree) read(name string) (text []byte, where string, err error) {
	if t.planned != "" && name == t.planned {
		return []byte(t.text), name, nil
	}
	f, err := t.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, name, nil
	}
	if err != nil {
		return nil, name, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, name, err
	}
	where = name
	if real, err := target(f); err == nil {
		where = strings.TrimPrefix(real, t.path)
	}
	text, err = io.ReadAll(f)
	return text, where, err
}

// target is where an open file lies.
func target(f *os.File) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}
