package netns_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func current(t testing.TB) *netns.Handle {
	t.Helper()
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// threadInode reads the namespace of the calling thread without the room under
// test.
func threadInode() (uint64, error) {
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.Trim(link, "net:[]"), 10, 64)
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	inside := netnstest.New(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadInode()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var got uint64
		if err := inside.Do(func() (err error) { got, err = threadInode(); return err }); err != nil {
			t.Fatal(err)
		}
		if got != inside.Inode() || got == before {
			t.Fatalf("function ran in namespace %d, want %d (caller's is %d)", got, inside.Inode(), before)
		}
		if after, err := threadInode(); err != nil || after != before {
			t.Fatalf("after Do the caller is in namespace %d (%v), want %d", after, err, before)
		}
	}
}

func TestDoInOwnNamespaceNeedsNoPrivilege(t *testing.T) {
	own := current(t)
	ran := false
	if err := own.Do(func() error { ran = true; return nil }); err != nil || !ran {
		t.Fatalf("ran %v, error %v", ran, err)
	}
}

func TestDoReturnsTheFunctionsError(t *testing.T) {
	want := errors.New("as it is")
	for name, h := range map[string]*netns.Handle{"own": current(t), "other": netnstest.New(t)} {
		if got := h.Do(func() error { return want }); got != want {
			t.Errorf("%s namespace: error %v, want %v", name, got, want)
		}
	}
}

// Nested: a function inside one namespace enters another and comes back to the
// first.
func TestDoNests(t *testing.T) {
	outer, inner := netnstest.New(t), netnstest.New(t)
	err := outer.Do(func() error {
		if err := inner.Do(func() error { return wantInode(inner) }); err != nil {
			return err
		}
		return wantInode(outer)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantInode(h *netns.Handle) error {
	got, err := threadInode()
	if err != nil {
		return err
	}
	if got != h.Inode() {
		return errors.New("in namespace " + strconv.FormatUint(got, 10) + ", want " + strconv.FormatUint(h.Inode(), 10))
	}
	return nil
}

func TestDoSurvivesAFunctionThatExits(t *testing.T) {
	inside := netnstest.New(t)
	if err := inside.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error from a function that did not return")
	}
	if err := inside.Do(func() error { return wantInode(inside) }); err != nil {
		t.Error(err)
	}
}

// No thread of the process may be left in a foreign namespace, however many
// goroutines entered some at once. Threads that died in between do not count.
func TestConcurrentDoLeavesNoThreadBehind(t *testing.T) {
	var inside []*netns.Handle
	for range 8 {
		inside = append(inside, netnstest.New(t))
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				h := inside[(i+j)%len(inside)]
				if err := h.Do(func() error { runtime.Gosched(); return wantInode(h) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	own := current(t).Inode()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		link, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue
		}
		if want := "net:[" + strconv.FormatUint(own, 10) + "]"; link != want {
			t.Errorf("thread %s is in %s, want %s", task.Name(), link, want)
		}
	}
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	inside := netnstest.New(t)
	use := func() {
		if err := inside.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := inside.Cookie(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		if _, err := netns.Open("/dev/null"); !errors.Is(err, netns.ErrNotNamespace) {
			t.Fatalf("/dev/null: error %v, want ErrNotNamespace", err)
		}
		h, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		netns.Discover("/proc", "/run")
	}
	use() // lets the runtime open what it keeps
	before := descriptors(t)
	for range 20 {
		use()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// A handle that is closed twice does not close the file that has its number by then.
func TestClosedHandle(t *testing.T) {
	h := current(t)
	number := h.FD()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if int(other.Fd()) != number {
		t.Fatalf("descriptor %d was used again as %d", number, other.Fd())
	}
	if err := h.Close(); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed again: %v, want EBADF", err)
	}
	if _, err := other.Stat(); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCookie(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	cookieA, err := a.Cookie()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Cookie()
	if err != nil {
		t.Fatal(err)
	}
	cookieB, err := b.Cookie()
	if err != nil {
		t.Fatal(err)
	}
	own, err := current(t).Cookie()
	if err != nil {
		t.Fatal(err)
	}
	if cookieA == 0 || cookieA != again || cookieA == cookieB || cookieA == own {
		t.Errorf("cookies %d, again %d, of another %d, own %d: want the first two alike and no others",
			cookieA, again, cookieB, own)
	}
}

func TestNewIsEmptyWithLoopbackUp(t *testing.T) {
	inside := netnstest.New(t)
	err := inside.Do(func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range interfaces {
			if up := i.Flags&net.FlagUp != 0; up != (i.Name == "lo") {
				t.Errorf("interface %s: up %v", i.Name, up)
			}
		}
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			defer l.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesWhatIsNoNetworkNamespace(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "left-over")
	if err := os.WriteFile(empty, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		empty:                      netns.ErrNotNamespace,
		"/proc/thread-self/ns/uts": netns.ErrNotNamespace,
		"/proc/0/ns/net":           fs.ErrNotExist,
	} {
		if h, err := netns.Open(path); !errors.Is(err, want) {
			t.Errorf("open %s: %v, %v; want %v", path, h, err, want)
		}
	}
}

// A handle keeps its namespace alive; a path does not.
func TestNamespaceThatVanishes(t *testing.T) {
	inside := netnstest.New(t)
	child := exec.Command("sleep", "600")
	netnstest.Start(t, inside, child)
	path := "/proc/" + strconv.Itoa(child.Process.Pid) + "/ns/net"
	held, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	child.Process.Kill()
	child.Wait()

	if _, err := netns.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open the path of a dead process: %v, want fs.ErrNotExist", err)
	}
	if err := held.Do(func() error { return wantInode(inside) }); err != nil {
		t.Errorf("through the handle: %v", err)
	}
}

func BenchmarkDo(b *testing.B) {
	inside := netnstest.New(b)
	for b.Loop() {
		if err := inside.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
