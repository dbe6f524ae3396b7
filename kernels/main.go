// Kernels runs tests on the kernel of Debian's stable release, in a virtual machine: whether
// the BPF programs load, and count right, on a kernel older than the one that they are built
// on. It installs qemu, fetches the kernel by the names of their packages, and makes an initial file
// system of itself, the tests and the modules that they need: in the machine this very
// program is init. It needs root, for apt-get.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packages whose programs are run, and whose kernel.
const (
	emulator = "qemu-system-x86"
	kernel   = "linux-image-cloud-amd64"
)

// modules that the tests need, where the kernel does not have them built in.
var modules = []string{"net/ipv4/inet_diag.ko", "net/ipv4/tcp_diag.ko"}

// tests are the packages whose tests are run, and which of them: the others need programs that are
// not in the machine, or reasons of resets, which that kernel does not tell.
var tests = map[string]string{
	"./internal/kernel/trace": "WhoClosed|EndsWithoutClose|ConnectFails/no_port|ConnectFails/bound|Overflow|TwoAtOnce|NothingIsLeft|OwnersOfTimeWait|Filters",
}

// passed is what the guest writes last.
const passed = "kernels: all tests passed"

func main() {
	if os.Getpid() == 1 {
		guest()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := host(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		stop()
		os.Exit(1)
	}
}

// host makes the machine, runs it, and wants the last line.
func host(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "linger-kernels")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image, tree, err := fetch(ctx, dir)
	if err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := pack(ctx, initrd, tree); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "kernels: starting", filepath.Base(image))
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	args := []string{"-m", "2G", "-smp", "2", "-nographic", "-no-reboot", "-kernel", image, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet"}
	// Without KVM: in a machine that is virtual itself /dev/kvm may be there and hang.
	var out bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, "-accel", "tcg")...)
	qemu.Stdout = io.MultiWriter(os.Stdout, &out)
	qemu.Stderr = os.Stderr
	if err := qemu.Run(); err != nil {
		return fmt.Errorf("qemu: %w", err)
	}
	if strings.Contains(out.String(), "--- SKIP") || !strings.Contains(out.String(), passed) {
		return errors.New("tests failed in the machine")
	}
	return nil
}

// fetch installs the emulator, and returns the kernel's image and its unpacked package.
func fetch(ctx context.Context, dir string) (image, tree string, err error) {
	run := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		fmt.Fprintln(os.Stderr, "kernels: installing", emulator)
		if err := run("apt-get", "install", "-y", "-qq", "--no-install-recommends", emulator); err != nil {
			return "", "", err
		}
	}
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--important", kernel).Output()
	if err != nil {
		return "", "", fmt.Errorf("apt-cache depends %s: %w", kernel, err)
	}
	_, name, found := strings.Cut(string(out), "Depends: ")
	if !found {
		return "", "", fmt.Errorf("%s depends on no kernel", kernel)
	}
	name, _, _ = strings.Cut(name, "\n")
	fmt.Fprintln(os.Stderr, "kernels: fetching", name)
	if err := run("apt-get", "download", name); err != nil {
		return "", "", err
	}
	files, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if len(files) != 1 {
		return "", "", fmt.Errorf("apt-get download %s brought %v", name, files)
	}
	tree = filepath.Join(dir, "tree")
	if err := run("dpkg", "-x", files[0], tree); err != nil {
		return "", "", err
	}
	images, _ := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return "", "", fmt.Errorf("%s has the kernels %v", name, images)
	}
	return images[0], tree, nil
}

// pack writes the initial file system.
func pack(ctx context.Context, to, tree string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{"init": self}
	for pkg := range tests {
		binary := filepath.Join(filepath.Dir(to), filepath.Base(pkg)+".test")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the tests of %s: %w", pkg, err)
		}
		files[filepath.Base(pkg)+".test"] = binary
	}
	for _, module := range modules {
		found, _ := filepath.Glob(filepath.Join(tree, "lib/modules/*/kernel", module))
		if len(found) == 1 { // else it is built in
			files[filepath.Base(module)] = found[0]
		}
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	archive := cpio{w: f}
	for _, dir := range []string{"proc", "sys", "tmp", "dev", "run"} {
		archive.add(dir, unix.S_IFDIR|0o755, nil)
	}
	for name, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		archive.add(name, unix.S_IFREG|0o755, content)
	}
	archive.add("TRAILER!!!", 0, nil)
	return errors.Join(archive.err, f.Close())
}

// cpio writes an archive in the form that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	w     io.Writer
	inode int
	err   error
}

func (c *cpio) add(name string, mode uint32, content []byte) {
	c.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	entry := append([]byte(header), name...)
	entry = append(entry, 0)
	for _, part := range [][]byte{entry, content} {
		part = append(part, make([]byte, (4-len(part)%4)%4)...)
		if c.err == nil {
			_, c.err = c.w.Write(part)
		}
	}
}

// guest is init in the machine: it runs the tests and turns the machine off.
func guest() {
	defer unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"devtmpfs", "/dev"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Printf("kernels: mount %s: %v\n", m[1], err)
		}
	}
	for _, module := range modules {
		if err := insert("/" + filepath.Base(module)); err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Printf("kernels: %s: %v\n", module, err)
		}
	}
	var name unix.Utsname
	_ = unix.Uname(&name) // cannot fail with a valid pointer
	fmt.Println("kernels: this is Linux", unix.ByteSliceToString(name.Release[:]))
	good := true
	for pkg, which := range tests {
		test := exec.Command("/"+filepath.Base(pkg)+".test", "-test.v", "-test.parallel=4", "-test.run="+which)
		test.Stdout, test.Stderr = os.Stdout, os.Stdout
		test.Env = []string{"PATH=/", "TMPDIR=/tmp", "HOME=/tmp"}
		if err := test.Run(); err != nil {
			fmt.Printf("kernels: %s: %v\n", pkg, err)
			good = false
		}
	}
	if good {
		fmt.Println(passed)
	}
}

func insert(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
