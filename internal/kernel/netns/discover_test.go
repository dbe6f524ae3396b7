package netns

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// These tests know what is not exported, and so cannot import netnstest, which imports this package.

func skipWithoutRoot(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("needs CAP_SYS_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, h *Handle) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := h.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestDiscoverOwn(t *testing.T) {
	own, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	found, _ := Discover("/proc", "/run")
	for _, f := range found {
		if f.Inode == own.Inode() {
			if f.PID == 0 || f.Processes == 0 {
				t.Errorf("own namespace found without a process: %+v", f)
			}
			return
		}
	}
	t.Errorf("own namespace %d not found among %d", own.Inode(), len(found))
}

func TestDiscoverOfProcesses(t *testing.T) {
	h, err := New()
	skipWithoutRoot(t, err)
	defer h.Close()
	first := start(t, h)
	second := start(t, h)

	found, _ := Discover("/proc", "/run")
	lowest := min(first, second)
	want := Found{
		Inode: h.Inode(), PID: lowest, Processes: 2,
		Path: "/proc/" + strconv.Itoa(lowest) + "/ns/net",
	}
	for _, f := range found {
		if f.Inode == h.Inode() {
			if diff := cmp.Diff(want, f); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			return
		}
	}
	t.Errorf("namespace %d not found", h.Inode())
}

// The mounts are made on a thread with a mount namespace of its own, which dies
// with the mounts.
func TestDiscoverNamed(t *testing.T) {
	h, err := New()
	skipWithoutRoot(t, err)
	defer h.Close()
	busy, err := New()
	skipWithoutRoot(t, err)
	defer busy.Close()
	pid := start(t, busy)

	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alone", "busy", "left-over", "twin"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		for name, h := range map[string]*Handle{"alone": h, "twin": h, "busy": busy} {
			source := "/proc/thread-self/fd/" + strconv.Itoa(h.FD())
			if err := unix.Mount(source, filepath.Join(dir, name), "", unix.MS_BIND, ""); err != nil {
				t.Errorf("mount %s: %v", name, err)
				return
			}
		}

		found, problems := discoverIn("/proc", []string{dir, link, filepath.Join(dir, "none")})
		want := map[uint64]Found{
			h.Inode():    {Inode: h.Inode(), Name: "alone", Path: filepath.Join(dir, "alone")},
			busy.Inode(): {Inode: busy.Inode(), Name: "busy", Path: filepath.Join(dir, "busy"), PID: pid, Processes: 1},
		}
		got := map[uint64]Found{}
		for i, f := range found {
			if _, mine := want[f.Inode]; mine {
				got[f.Inode] = f
			}
			if i > 0 && found[i-1].PID == 0 && f.PID != 0 {
				t.Errorf("a namespace without a process comes before one with process %d", f.PID)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		// Even root may not look at a process with more capabilities than its own.
		problems = slices.DeleteFunc(problems, func(err error) bool { return errors.Is(err, fs.ErrPermission) })
		if len(problems) != 1 || !errors.Is(problems[0], ErrNotNamespace) {
			t.Errorf("problems %v, want one: the left-over mount point", problems)
		}
	}()
	<-done
}

func TestDiscoverWithoutProc(t *testing.T) {
	found, problems := discoverIn(filepath.Join(t.TempDir(), "none"), nil)
	if len(found) != 0 || len(problems) != 1 || !errors.Is(problems[0], fs.ErrNotExist) {
		t.Errorf("found %v, problems %v; want none, and one fs.ErrNotExist", found, problems)
	}
}

// As another user the processes of root are counted, its own are found.
func TestDiscoverWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: this thread stays another user
		// The system call itself changes one thread; unix.Setuid changes them all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETUID, 65534, 0, 0); errno != 0 {
			t.Errorf("setuid: %v", errno)
			return
		}
		_, problems := discoverIn("/proc", nil)
		if len(problems) != 1 || !errors.Is(problems[0], fs.ErrPermission) {
			t.Errorf("problems %v, want one: permission", problems)
		}
	}()
	<-done
}

func FuzzInodeOfLink(f *testing.F) {
	for _, seed := range []string{"net:[4026531840]", "net:[]", "mnt:[1]", "net:[1", "net:[-1]", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, link string) {
		inode, ok := inodeOfLink(link)
		if !ok {
			return
		}
		again, ok := inodeOfLink("net:[" + strconv.FormatUint(inode, 10) + "]")
		if !ok || again != inode {
			t.Errorf("%q reads as %d, which reads as %d, %v", link, inode, again, ok)
		}
	})
}
