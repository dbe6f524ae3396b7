package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/sysctl"
	"linger/internal/lab"
	"linger/internal/plan"
	"linger/internal/setting"
)

// This program is also what it tests: the watcher that Apply starts is a copy of it,
// and commands that are to be killed run in it.
const (
	doEnv   = "LINGER_TEST_DO"   // a JSON of deed
	killEnv = "LINGER_TEST_KILL" // who:n dies by SIGKILL at its n-th step
	roEnv   = "LINGER_TEST_RO"   // /proc/sys is read-only

	noBPFEnv = "LINGER_TEST_NOBPF" // bpf(2) is forbidden
)

// deed is one command that runs in a process of its own.
type deed struct {
	What, Dir, ID string
	Root          string // what files of sysctl.d are below
	Plan          *plan.Plan
	Within        time.Duration
	Guard         GuardMode
}

func TestMain(m *testing.M) {
	lab.Worker()
	if len(os.Args) > 1 && os.Args[1] == WatchCommand {
		dieAtStep("watch", os.Args[3])
		finish(Watch(context.Background(), os.Args[3], os.Args[4]))
	}
	if text, ok := os.LookupEnv(doEnv); ok {
		os.Unsetenv(doEnv)
		var d deed
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			finish(err)
		}
		if os.Getenv(roEnv) != "" {
			if err := readOnlySysctls(); err != nil {
				finish(err)
			}
		}
		if os.Getenv(noBPFEnv) != "" {
			if err := forbidBPF(); err != nil {
				finish(err)
			}
		}
		dieAtStep(d.What, d.Dir)
		finish(d.do())
	}
	os.Exit(m.Run())
}

func finish(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (d deed) do() error {
	var e *Entry
	var err error
	switch d.What {
	case "apply":
		e, err = Apply(context.Background(), d.Plan, Options{StateDir: d.Dir, Within: d.Within, Guard: d.Guard, Live: true})
	case "confirm":
		e, err = Confirm(d.Dir, d.ID)
	case "keep":
		e, _, err = ConfirmAndKeep(d.Dir, d.Root, d.ID)
	case "rollback":
		e, err = Rollback(d.Dir, d.ID, false)
	case "recover":
		return Recover(d.Dir)
	default:
		err = errors.New("no such deed")
	}
	if err == nil {
		fmt.Print(e.ID)
	}
	return err
}

// killedName is the file by which a process says that it died where it was told to.
const killedName = "killed"

func dieAtStep(who, dir string) {
	role, text, _ := strings.Cut(os.Getenv(killEnv), ":")
	left, err := strconv.Atoi(text)
	if err != nil || role != who {
		return
	}
	step = func(string) {
		if left--; left == 0 {
			_ = os.WriteFile(filepath.Join(dir, killedName), nil, 0o600)
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
}

// run does a deed in a process of its own; killed tells that it died by SIGKILL.
func (d deed) run(env ...string) (id string, killed bool, err error) {
	text, err := json.Marshal(d)
	if err != nil {
		return "", false, err
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(append(os.Environ(), doEnv+"="+string(text)), env...)
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, roEnv) }) {
		// Before the process has threads: all of them see what one of them mounts.
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	var stdout, stderr strings.Builder
	// Files, not pipes: a watcher that is left must not hold Wait up.
	out, err := os.CreateTemp(d.Dir, "out")
	if err != nil {
		return "", false, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	errs, err := os.CreateTemp(d.Dir, "err")
	if err != nil {
		return "", false, err
	}
	defer os.Remove(errs.Name())
	defer errs.Close()
	c.Stdout, c.Stderr = out, errs
	err = c.Run()
	for f, to := range map[*os.File]*strings.Builder{out: &stdout, errs: &stderr} {
		text, _ := os.ReadFile(f.Name())
		to.Write(text)
	}
	if err == nil {
		return stdout.String(), false, nil
	}
	if status, ok := c.ProcessState.Sys().(interface{ Signaled() bool }); ok && status.Signaled() {
		return "", true, nil
	}
	return "", false, errors.New(strings.TrimSpace(stderr.String()))
}

// world is a namespace, a plan of two changes in it, and a state directory.
type world struct {
	t    *testing.T
	ns   *netns.Handle
	plan *plan.Plan
	dir  string
}

const (
	keyOne, oldOne, newOne = setting.TWReuse, "2", "1"
	keyTwo, oldTwo, newTwo = setting.LocalPortRange, "32768 60999", "10240 65535"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	h, err := netns.New()
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	w := &world{t: t, ns: h, dir: t.TempDir()}
	t.Cleanup(func() { h.Close() })
	w.plan = w.planFor(h)
	return w
}

func (w *world) planFor(h *netns.Handle) *plan.Plan {
	w.t.Helper()
	cookie, err := h.Cookie()
	if err != nil {
		w.t.Fatal(err)
	}
	boot, _, err := clock()
	if err != nil {
		w.t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		w.t.Fatal(err)
	}
	scope := plan.Scope{
		Cookie: cookie, Inode: h.Inode(), Label: "netns test", Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.FD()),
	}
	p := &plan.Plan{
		Schema: plan.Schema, MadeAt: time.Now(), Host: plan.Host{Name: name, BootID: boot},
		Changes: []plan.Change{
			{Scope: scope, Key: keyOne, Old: oldOne, New: newOne},
			{Scope: scope, Key: keyTwo, Old: oldTwo, New: newTwo},
		},
	}
	p.Counters = counters(p)
	return p
}

// ofTheHost has the plan say of its namespace that it is the host's, so that its values
// are kept in a file, below the root that it returns.
func (w *world) ofTheHost() (root string) {
	for i := range w.plan.Changes {
		w.plan.Changes[i].Scope.Label = "host"
	}
	return w.t.TempDir()
}

// files are those of sysctl.d below a root.
func (w *world) files(root string) []string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(root, dropIns, "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (w *world) set(key, value string) {
	w.t.Helper()
	if err := w.ns.Do(func() error { return sysctl.Write(key, value) }); err != nil {
		w.t.Fatal(err)
	}
}

// values are those of the two keys.
func (w *world) values() [2]string {
	w.t.Helper()
	one, err1 := read(w.ns, keyOne)
	two, err2 := read(w.ns, keyTwo)
	if err := errors.Join(err1, err2); err != nil {
		w.t.Fatal(err)
	}
	return [2]string{one, two}
}

var (
	oldValues = [2]string{oldOne, oldTwo}
	newValues = [2]string{newOne, newTwo}
)

func (w *world) apply(within time.Duration) *Entry {
	w.t.Helper()
	e, err := Apply(context.Background(), w.plan, Options{StateDir: w.dir, Within: within, Guard: GuardWarn, Live: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.endWatcher(e.ID) })
	return e
}

// endWatcher lets no watcher outlive its test: it ends by itself once its change is
// settled.
func (w *world) endWatcher(id string) {
	if e := w.entry(id); e != nil && !e.Settled() {
		_, _ = Rollback(w.dir, id, true)
	}
	w.await("the watcher's end", func() bool { return len(w.processes()) == 0 })
}

func (w *world) entry(id string) *Entry {
	records, err := ReadJournal(w.dir)
	if err != nil {
		return nil
	}
	e, _ := entryOf(records, id)
	return e
}

// watchers are the changes that a process watches over.
func (w *world) watchers() []string {
	var ids []string
	locks, _ := filepath.Glob(watchLock(w.dir, "*"))
	for _, lock := range locks {
		if id := strings.TrimPrefix(filepath.Base(lock), "watch-"); isWatched(w.dir, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// processes are the watchers that run, whether they hold a lock or not.
func (w *world) processes() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), "\x00"+WatchCommand+"\x00--state-dir\x00"+w.dir+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

const patience = time.Minute

func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(w.dir, journalName))
			w.t.Fatalf("waited in vain for %s; values %v; journal:\n%s", what, w.values(), text)
		}
	}
}

// readOnlySysctls makes /proc/sys read-only in a mount namespace of this process.
func readOnlySysctls() error {
	const sys = "/proc/sys"
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(sys, sys, "", unix.MS_BIND, ""),
		unix.Mount("", sys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	)
}

// forbidBPF has the kernel refuse bpf(2) to this process and to all that it starts, as
// the filter of a container does (seccomp(2)).
func forbidBPF() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
