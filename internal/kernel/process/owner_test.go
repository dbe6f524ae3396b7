package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const proc = Tree("/proc")

// asOther makes the test binary, run again, tell how much an ordinary user sees.
const asOther = "LINGER_TEST_OWNERS_OF"

func TestMain(m *testing.M) {
	if inode := os.Getenv(asOther); inode != "" {
		n, _ := strconv.ParseUint(inode, 10, 64)
		found, err := proc.Owners(context.Background(), map[uint64]struct{}{n: {}})
		fmt.Println(len(found.ByInode), found.Unreadable, err)
		return
	}
	goleak.VerifyTestMain(m)
}

// listener makes a socket and returns it with its inode.
func listener(t testing.TB) (*os.File, uint64) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, st.Ino
}

func set(inodes ...uint64) map[uint64]struct{} {
	s := map[uint64]struct{}{}
	for _, inode := range inodes {
		s[inode] = struct{}{}
	}
	return s
}

func TestOwnersFindsTheProcessAndDescribesIt(t *testing.T) {
	f, inode := listener(t)
	_, other := listener(t)
	// A copy of the descriptor is no second owner.
	twin, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(twin)

	const nobodys = 1<<64 - 1
	found, err := proc.Owners(t.Context(), set(inode, nobodys))
	if err != nil {
		t.Fatal(err)
	}
	owner := found.ByInode[inode]
	if int(owner.PID) != os.Getpid() || owner.Sharing != 1 || len(found.ByInode) != 1 {
		t.Errorf("process %d has the socket, found was %+v", os.Getpid(), found.ByInode)
	}
	if _, asked := found.ByInode[other]; asked {
		t.Error("a socket that was not asked for is in the answer")
	}

	p := found.Processes[owner.PID]
	comm, _ := os.ReadFile("/proc/self/comm")
	if p.PID != os.Getpid() || p.Comm != strings.TrimSpace(string(comm)) {
		t.Errorf("described as %d %q", p.PID, p.Comm)
	}
	// /proc/stat counts the boot in whole seconds.
	if age := time.Now().Unix() - p.Started; age < -2 || age > 3600 {
		t.Errorf("started %d s ago", age)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if p.DescriptorLimit == nil || uint64(*p.DescriptorLimit) != limit.Cur {
		t.Errorf("the descriptor limit is %d, read was %v", limit.Cur, p.DescriptorLimit)
	}
	if p.Descriptors == nil || *p.Descriptors < 4 {
		t.Errorf("open descriptors: %v", p.Descriptors)
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &ns); err != nil {
		t.Fatal(err)
	}
	if p.Netns != ns.Ino {
		t.Errorf("the namespace is %d, read was %d", ns.Ino, p.Netns)
	}
}

func TestOwnersOfASharedSocket(t *testing.T) {
	f, inode := listener(t)
	const children = 3
	for range children {
		child := exec.Command("sleep", "60")
		child.ExtraFiles = []*os.File{f}
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := child.Start(); err != nil {
			t.Skipf("cannot start sleep: %v", err)
		}
		t.Cleanup(func() {
			child.Process.Kill()
			child.Wait()
		})
	}
	found, err := proc.Owners(t.Context(), set(inode))
	if err != nil {
		t.Fatal(err)
	}
	owner := found.ByInode[inode]
	if int(owner.PID) != os.Getpid() || owner.Sharing != children+1 {
		t.Errorf("process %d and %d children share it, found was %+v", os.Getpid(), children, owner)
	}
	if len(found.Processes) != 1 {
		t.Errorf("%d processes were described, one is named", len(found.Processes))
	}
}

// Before 6.2 the size of /proc/PID/fd is 0. The kernel cannot be made to do so
// again: only the decision is forced.
func TestOwnersWithoutTheSizeOfTheDirectory(t *testing.T) {
	_, inode := listener(t)
	pids, err := proc.pids()
	if err != nil {
		t.Fatal(err)
	}
	r := reader{tree: proc, wanted: set(inode)}
	batches := make(chan batch, 16)
	go func() {
		defer close(batches)
		proc.list(t.Context(), pids, false, batches)
	}()
	for b := range batches {
		r.read(b)
	}
	if len(r.hits) != 1 || r.hits[0] != (hit{inode, int32(os.Getpid())}) {
		t.Errorf("found %+v", r.hits)
	}
}

func TestOwnersCountsWhatAnotherUserMayNotSee(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	_, inode := listener(t)
	// By this name the binary is reached whatever the rights of its directory.
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), asOther+"="+strconv.FormatUint(inode, 10))
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	command.Dir = "/"
	out, err := command.CombinedOutput()
	if err != nil {
		t.Skipf("cannot run as another user: %v", err)
	}
	var found, unreadable int
	var failure string
	if _, err := fmt.Sscan(string(out), &found, &unreadable, &failure); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if found != 0 || failure != "<nil>" {
		t.Errorf("nobody found %d sockets, error %s", found, failure)
	}
	pids, err := proc.pids()
	if err != nil {
		t.Fatal(err)
	}
	// This process at least, and no kernel thread. Others come and go meanwhile, but
	// not as many as there are kernel threads.
	if unreadable < 1 || unreadable >= len(pids) {
		t.Errorf("%d processes are not readable, and there are %d with the kernel's threads", unreadable, len(pids))
	}
}

func TestOwnersWithoutProc(t *testing.T) {
	if _, err := Tree("/nowhere").Owners(t.Context(), set(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no /proc gave %v", err)
	}
	if _, err := Tree(t.TempDir()).Owners(t.Context(), set(1)); err == nil {
		t.Error("an empty directory was taken for /proc")
	}
}

// Out of descriptors, it says so: to pass processes over would be to say that they
// own nothing.
func TestOwnersWithoutDescriptorsLeft(t *testing.T) {
	_, inode := listener(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = min(low.Cur, 64)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	var taken []int
	defer func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
	}()
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	// One is left: enough to list the processes, and not to read their descriptors.
	last := len(taken) - 1
	unix.Close(taken[last])
	taken = taken[:last]
	if _, err := proc.Owners(t.Context(), set(inode)); !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v, want %v", err, unix.EMFILE)
	}
}

func TestOwnersWithin(t *testing.T) {
	_, inode := listener(t)
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &ns); err != nil {
		t.Fatal(err)
	}
	found, err := proc.OwnersWithin(t.Context(), set(inode), set(ns.Ino))
	if owner := found.ByInode[inode]; err != nil || int(owner.PID) != os.Getpid() || found.Processes[owner.PID].PID != os.Getpid() {
		t.Errorf("found %+v, %v", found, err)
	}
	found, err = proc.OwnersWithin(t.Context(), set(inode), set(ns.Ino+1))
	if err != nil || len(found.ByInode) != 0 {
		t.Errorf("found %+v in another namespace, %v", found, err)
	}
}

func TestOwnersStops(t *testing.T) {
	_, inode := listener(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found, err := proc.Owners(ctx, set(inode))
	if !errors.Is(err, context.Canceled) || len(found.ByInode) != 0 {
		t.Errorf("found %v, %v", found.ByInode, err)
	}
}

func TestOwnersOfNothing(t *testing.T) {
	found, err := proc.Owners(t.Context(), nil)
	if err != nil || len(found.ByInode) != 0 || found.Unreadable != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// As many descriptors as this process may have, up to 100,000.
func BenchmarkOwners(b *testing.B) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	descriptors := min(100_000, int(limit.Cur)-200)
	f, inode := listener(b)
	for range descriptors {
		twin, err := unix.Dup(int(f.Fd()))
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(twin)
	}
	b.ReportAllocs()
	for b.Loop() {
		found, err := proc.Owners(b.Context(), set(inode))
		if err != nil || found.ByInode[inode].Sharing != 1 {
			b.Fatal(found.ByInode, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*descriptors), "ns/descriptor")
}
