// Package sysctl reads and writes one kernel setting at a time, in the network
// namespace of the calling thread, and knows which files on disk would set it at
// the next boot. It refuses to judge a value, and writes nothing on its own.
package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const root = "/proc/sys/"

// Proc is a mounted proc file system, normally /proc.
type Proc string

// ErrAbsent means that the running kernel has no such key, or keeps it once per
// host and hides it from a child namespace.
var ErrAbsent = errors.New("no such key")

// Read is the value of a key such as net.ipv4.tcp_tw_reuse: trimmed, and with one
// space where the kernel prints a tab. Keys under net are those of the namespace
// that the calling thread is in (fs/proc/proc_sysctl.c looks at the task that
// reads), so the goroutine must be locked to its thread.
//
// Errors wrap ErrAbsent, or the kernel's own such as fs.ErrPermission.
func Read(key string) (string, error) {
	d := directory{root: root, fd: -1}
	defer d.close()
	return d.read(key)
}

// ReadAll is that of /proc.
func ReadAll(keys []string) (map[string]string, error) { return Proc("/proc").ReadAll(keys) }

// ReadAll is Read for several keys. An absent key is left out and is no error;
// what failed otherwise is left out and named in the joined error.
func (p Proc) ReadAll(keys []string) (map[string]string, error) {
	d := directory{root: string(p) + "/sys/", fd: -1}
	defer d.close()
	values := make(map[string]string, len(keys))
	var problems []error
	for _, key := range keys {
		value, err := d.read(key)
		switch {
		case err == nil:
			values[key] = value
		case !errors.Is(err, ErrAbsent):
			problems = append(problems, err)
		}
	}
	return values, errors.Join(problems...)
}

// Write sets a key in the namespace of the calling thread. A key that the kernel
// keeps once per host changes for all of it.
//
// Errors wrap ErrAbsent, or the kernel's own: unix.EINVAL for a value out of range,
// fs.ErrPermission.
func Write(key, value string) error {
	path, err := file(root, key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		// The kernel takes a value in one write (proc_sys_call_handler).
		_, err = f.WriteString(value + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", key, absent(root, err))
	}
	return nil
}

// file is the path of a key below root.
func file(root, key string) (string, error) {
	name := slashed(key)
	if !fs.ValidPath(name) || name == "." {
		return "", fmt.Errorf("%q is no key", key)
	}
	return root + name, nil
}

// slashed turns a key into a path below /proc/sys. As sysctl.d(5) has it, the first
// separator decides: after a slash all stays as it is, after a dot the two change
// places, so that net.ipv4.conf.eth0/1.forwarding can name the device eth0.1.
func slashed(key string) string {
	first := strings.IndexAny(key, "./")
	if first < 0 || key[first] == '/' {
		return key
	}
	swap := func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}
	return strings.Map(swap, key)
}

// directory holds the directory of the last key open. Files below /proc/sys/net
// have the same name in every namespace, so that the kernel finds them in one chain
// of its cache of names, and has to walk it for each part of a path
// (proc_sys_compare of fs/proc/proc_sysctl.c): with hundreds of namespaces a path
// costs three times as much as a name in an open directory.
type directory struct {
	root string
	fd   int // -1 where none is open
	path string
}

func (d *directory) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

func (d *directory) read(key string) (string, error) {
	name, err := file(d.root, key)
	if err != nil {
		return "", err
	}
	dir, name := path.Split(name)
	if d.fd < 0 || d.path != dir {
		d.close()
		d.path = dir
		d.fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	var text string
	if err == nil {
		text, err = contents(d.fd, name)
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, absent(d.root, err))
	}
	return text, nil
}

// contents reads a file by one read: the handlers of lists, such as
// proc_do_large_bitmap of kernel/sysctl.c for ip_local_reserved_ports, say that the
// file ends where a first read ended. So a buffer that was filled was too small, and
// the file is read again from its beginning.
//
// It does without os.File, which asks the poller about each file that it opens: with
// hundreds of namespaces there are thousands of them.
func contents(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var small [1 << 10]byte // no work for the garbage collector
	for buf := small[:]; ; buf = make([]byte, 16*len(buf)) {
		n, err := unix.Pread(fd, buf, 0)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return strings.ReplaceAll(string(bytes.TrimSpace(buf[:n])), "\t", " "), nil
		}
	}
}

// absent tells a key that does not exist from a /proc that is not there.
func absent(root string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, missing := os.Stat(root + "kernel"); missing != nil {
		return missing
	}
	return ErrAbsent
}
