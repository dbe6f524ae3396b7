package change

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"linger/internal/deed"
	"linger/internal/kernel/netns"
)

// systemd is a real one, process 1 of namespaces of its own, with no unit but those
// that a transient one asks for. It is given a cgroup, and starts no service of this
// host.
type systemd struct {
	t   *testing.T
	pid int
}

func startSystemd(t *testing.T) *systemd {
	t.Helper()
	const program = "/lib/systemd/systemd"
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v: scripts/test-peers installs it", err)
	}
	units := t.TempDir()
	for _, name := range []string{"sysinit", "basic", "timers", "shutdown", "linger-test"} {
		text := "[Unit]\nDescription=" + name + "\nDefaultDependencies=no\n"
		if err := os.WriteFile(filepath.Join(units, name+".target"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const script = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# systemd raises limits of the whole host when it starts: only what is of its own
# network namespace can be written.
mount --bind /proc/sys /proc/sys
mount --rbind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH="$1" \
	"$0" --system --unit=linger-test.target --log-target=console`
	c := exec.Command("sh", "-c", script, program, units)
	group := newCgroup(t)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWCGROUP,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	said, err := os.Create(filepath.Join(units, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Skipf("no systemd in namespaces of its own: %v", err)
	}
	s := &systemd{t, c.Process.Pid}
	t.Cleanup(func() {
		_ = c.Process.Kill() // what else is in its namespace ends with it
		_ = c.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out, err := s.inside("systemctl", "is-active", "linger-test.target").CombinedOutput()
		if err == nil {
			return s
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("systemd did not start: %v: %s\n%s", err, out, text)
		}
	}
}

// newCgroup is a new group of cgroup2, removed with all below it when the test ends.
func newCgroup(t *testing.T) *os.File {
	t.Helper()
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	root := ""
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); fields[2] == "cgroup2" {
			root = fields[1]
		}
	}
	dir, err := os.MkdirTemp(root, "linger-test-")
	if root == "" || err != nil {
		t.Skipf("no group of cgroup2 can be made in %q: %v", root, err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if err := removeGroups(dir); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// removeGroups removes a group and those below it.
func removeGroups(dir string) error {
	below, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range below {
		if entry.IsDir() {
			if err := removeGroups(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// inside runs a command where systemd is process 1.
func (s *systemd) inside(arguments ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(s.pid), "-m", "-p", "-n", "-i", "-u", "-C", "--"}, arguments...)...)
}

// do does an errand there, and returns the id of its change.
func (s *systemd) do(d errand) string {
	s.t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	// A scope stands for the login session, which is ended when the command is done.
	out, err := s.inside("systemd-run", "--quiet", "--scope", "--unit=session-"+d.What, "env", doEnv+"="+string(text), self).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", d.What, err, out)
	}
	return string(out)
}

func (s *systemd) systemctl(arguments ...string) string {
	out, _ := s.inside(append([]string{"systemctl"}, arguments...)...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

// Under a real systemd the watcher is a service that outlives the session, and one that
// is killed is followed by its timer at the deadline. Nothing is left when a change is
// settled.
func TestWatcherUnderARealSystemd(t *testing.T) {
	s := startSystemd(t)
	h, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	w := &world{t: t, ns: h, dir: t.TempDir()}
	w.plan = w.planFor(h)
	units := func(id string) string {
		return s.systemctl("list-units", "--all", "--plain", "--no-legend", "linger-*"+id+"*")
	}
	d := errand{What: "apply", Dir: w.dir, Plan: w.plan, Within: 5 * time.Second}

	// Killed before its deadline, the timer stands in.
	id := s.do(d)
	service, timer := "linger-watch-"+id+"-*.service", timerName+id+"-*.timer"
	if s.systemctl("is-active", service) != "active" || s.systemctl("is-active", timer) != "active" {
		t.Fatalf("units:\n%s", units(id))
	}
	s.systemctl("kill", "--signal=KILL", service)
	w.await("the watcher's end", func() bool { return !isWatched(w.dir, id) })
	if w.values() != newValues {
		t.Errorf("values %v before the deadline", w.values())
	}
	w.await("the old values", func() bool { return w.values() == oldValues && w.entry(id).State == deed.Undone })
	w.await("systemd to forget the units", func() bool { return units(id) == "" })

	// The next start of linger starts another watcher for one that was killed, with a
	// timer in place of the first one.
	d.Within = time.Hour
	id = s.do(d)
	service, timer = "linger-watch-"+id+"-*.service", timerName+id+"-*.timer"
	s.systemctl("kill", "--signal=KILL", service)
	w.await("the watcher's end", func() bool { return !isWatched(w.dir, id) })
	s.do(errand{What: "recover", Dir: w.dir})
	if s.systemctl("is-active", service) != "active" || s.systemctl("is-active", timer) != "active" {
		t.Fatalf("units:\n%s", units(id))
	}

	// Confirmed, and taken back at once: by the watcher that has not left, or a new one.
	s.do(errand{What: "confirm", Dir: w.dir, ID: id})
	s.do(errand{What: "rollback", Dir: w.dir, ID: id})
	if w.values() != oldValues {
		t.Errorf("values %v", w.values())
	}
	w.await("systemd to forget the units", func() bool { return units(id) == "" })
}
