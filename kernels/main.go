// Kernels runs tests on kernels of Debian's releases, in a virtual machine: whether the BPF
// programs load, and count right, on kernels older than the one that they are built on. It
// installs qemu, fetches each kernel by the names of its packages, and makes an initial file
// system of itself, the tests and the modules that they need: in the machine this very
// program is init. It needs root, for apt-get. Arguments choose among the releases.
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
	"slices"
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

// release is one of Debian, and the tests that are run on its kernel: the others need programs
// that are not in the machine, or what that kernel does not tell.
type release struct{ name, tests string }

// package whose tests are run, with -short: the machine is emulated.
const tested = "./internal/kernel/trace"

var releases = []release{
	// 6.1: no reasons of resets.
	{"bookworm", "WhoClosed|EndsWithoutClose|ConnectFails/no_port|ConnectFails/bound|MissedEnds|Overflow|GroupsAreGivenBack|" +
		"IOURing|TwoAtOnce|NothingIsLeft|OwnersOfTimeWait|Filters"},
	// 5.10: nor makers of TIME_WAIT sockets, nor cookies of namespaces.
	{"bullseye", "WhoClosed|EndsWithoutClose|ConnectFails/no_port|ConnectFails/bound|MissedEnds|Overflow|GroupsAreGivenBack|" +
		"NothingIsLeft|Filters"},
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
	if err := host(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		stop()
		os.Exit(1)
	}
}

// host runs the tests on each release that is named, or on all.
func host(ctx context.Context, names []string) error {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		fmt.Fprintln(os.Stderr, "kernels: installing", emulator)
		if err := run(ctx, "", nil, "apt-get", "install", "-y", "-qq", "--no-install-recommends", emulator); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		if err := r.test(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// test makes the machine, runs it, and wants the last line.
func (r release) test(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "linger-kernels")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image, tree, err := r.fetch(ctx, dir)
	if err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := r.pack(ctx, initrd, tree); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "kernels: starting", filepath.Base(image))
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	// Without KVM: in a machine that is virtual itself /dev/kvm may be there and hang.
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-m", "2G", "-smp", "2", "-accel", "tcg", "-nographic", "-no-reboot",
		"-kernel", image, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet")
	var out bytes.Buffer
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

// run is a command whose output matters only when it fails.
func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "DEBIAN_FRONTEND=noninteractive"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// sources are where apt-get finds a release, apart from where the host finds its own.
const (
	sources = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %[1]s main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security %[1]s-security main
`
	aptConfig = `Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "-";
Dir::State::lists "%[1]s/lists"; Dir::Cache "%[1]s/cache";
APT::Architecture "amd64"; APT::Sandbox::User "root";
`
)

// fetch returns the kernel's image and its unpacked package.
func (r release) fetch(ctx context.Context, dir string) (image, tree string, err error) {
	config := filepath.Join(dir, "apt.conf")
	err = errors.Join(os.WriteFile(filepath.Join(dir, "sources.list"), fmt.Appendf(nil, sources, r.name), 0o644),
		os.WriteFile(config, fmt.Appendf(nil, aptConfig, dir), 0o644),
		os.MkdirAll(filepath.Join(dir, "lists/partial"), 0o755), os.MkdirAll(filepath.Join(dir, "cache/archives/partial"), 0o755))
	if err != nil {
		return "", "", err
	}
	apt := []string{"APT_CONFIG=" + config}
	if err := run(ctx, dir, apt, "apt-get", "update", "-qq"); err != nil {
		return "", "", err
	}
	depends := exec.CommandContext(ctx, "apt-cache", "depends", "--important", kernel)
	depends.Env = append(os.Environ(), apt...)
	out, err := depends.Output()
	if err != nil {
		return "", "", fmt.Errorf("apt-cache depends %s: %w", kernel, err)
	}
	_, name, found := strings.Cut(string(out), "Depends: ")
	if !found {
		return "", "", fmt.Errorf("%s depends on no kernel", kernel)
	}
	name, _, _ = strings.Cut(name, "\n")
	fmt.Fprintln(os.Stderr, "kernels: fetching", name)
	if err := run(ctx, dir, apt, "apt-get", "download", name); err != nil {
		return "", "", err
	}
	files, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if len(files) != 1 {
		return "", "", fmt.Errorf("apt-get download %s brought %v", name, files)
	}
	tree = filepath.Join(dir, "tree")
	if err := run(ctx, dir, nil, "dpkg", "-x", files[0], tree); err != nil {
		return "", "", err
	}
	images, _ := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return "", "", fmt.Errorf("%s has the kernels %v", name, images)
	}
	return images[0], tree, nil
}

// pack writes the initial file system.
func (r release) pack(ctx context.Context, to, tree string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{"init": self, "trace.test": filepath.Join(filepath.Dir(to), "trace.test")}
	build := []string{"test", "-c", "-o", files["trace.test"], tested}
	if err := run(ctx, "", []string{"CGO_ENABLED=0"}, "go", build...); err != nil {
		return err
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
	archive.add("which", unix.S_IFREG|0o644, []byte(r.tests))
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
	for _, m := range [][2]string{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"devtmpfs", "/dev"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
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
	which, err := os.ReadFile("/which")
	if err != nil {
		fmt.Println("kernels:", err)
		return
	}
	test := exec.Command("/trace.test", "-test.v", "-test.short", "-test.parallel=4", "-test.timeout=25m", "-test.run="+string(which))
	test.Stdout, test.Stderr = os.Stdout, os.Stdout
	test.Env = []string{"PATH=/", "TMPDIR=/tmp", "HOME=/tmp"}
	if err := test.Run(); err != nil {
		fmt.Println("kernels:", err)
		return
	}
	fmt.Println(passed)
}

func insert(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
