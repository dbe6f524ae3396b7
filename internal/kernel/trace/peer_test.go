package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
)

// patience bounds what should take a moment.
const patience = 60 * time.Second

// peer is a program that a test runs: this very one, under another name.
type peer struct {
	Listen string // an address to accept connections on
	Dial   string // an address to connect to
	Count  int    // of connections
	// What a server does with a connection: close it, wait for the other end's FIN, answer and
	// wait, reset it (SO_LINGER), ignore what was sent, hold it, never accept it.
	// What a client does: close it, ask and close when the answer is there, ask and wait, send and
	// wait, wait, reset it, hold it.
	Do string
	// Source binds the client's address and a port of its own choosing.
	Source string
	// Name is what a server calls itself once it listens.
	Name string
}

const peerVariable = "TRACE_TEST_PEER"

func TestMain(m *testing.M) {
	if text := os.Getenv(peerVariable); text != "" {
		var p peer
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := p.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	for variable, program := range map[string]func() error{tracerVariable: traceUntilKilled, hopperVariable: hop, uringVariable: runURing} {
		if os.Getenv(variable) == "" {
			continue
		}
		if err := program(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func (p *peer) run() error {
	if p.Listen != "" {
		return p.serve()
	}
	return p.connect()
}

func (p *peer) serve() error {
	l, err := net.Listen("tcp", p.Listen)
	if err != nil {
		return err
	}
	if p.Name != "" {
		if err := os.WriteFile("/proc/self/comm", []byte(p.Name), 0); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if p.Do == "never accept" {
		_, err := io.Copy(io.Discard, os.Stdin) // until the test closes it
		return err
	}
	var held []net.Conn
	for range p.Count {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		switch p.Do {
		case "close":
			c.Write([]byte("x"))
			c.Close()
		case "wait":
			io.Copy(io.Discard, c)
			c.Close()
		case "answer":
			c.Read(make([]byte, 1))
			c.Write([]byte("x"))
			io.Copy(io.Discard, c)
			c.Close()
		case "reset":
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case "ignore":
			raw, _ := c.(*net.TCPConn).SyscallConn()
			// Until something is there to be ignored.
			raw.Read(func(fd uintptr) bool {
				n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
				return n > 0 || err != syscall.EAGAIN
			})
			c.Close()
		case "hold":
			held = append(held, c)
		}
	}
	if p.Do == "hold" {
		fmt.Println("holding")
		io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(held) // open until the process has ended
	}
	return nil
}

func (p *peer) connect() error {
	dialer := net.Dialer{Timeout: patience}
	if p.Source != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.Source)}
	}
	var held []net.Conn
	for range p.Count {
		c, err := dialer.Dial("tcp", p.Dial)
		if err != nil {
			continue // counted by the kernel
		}
		switch p.Do {
		case "close":
			c.Close()
		case "ask":
			c.Write([]byte("x"))
			c.Read(make([]byte, 1))
			c.Close()
		case "ask and wait", "send":
			c.Write([]byte("x"))
			io.Copy(io.Discard, c)
			c.Close()
		case "wait":
			io.Copy(io.Discard, c)
			c.Close()
		case "reset":
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case "hold":
			held = append(held, c)
		}
	}
	if p.Do == "hold" {
		fmt.Println("holding")
		io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(held) // open until the process has ended
	}
	return nil
}

// running is a program that a test has started.
type running struct {
	*exec.Cmd
	stdin io.WriteCloser
	out   io.Reader
}

// start runs a program in a namespace, under a name, and in a cgroup unless that is empty.
// The name is that of a link, for the kernel names a process by the file it is started from.
func start(t *testing.T, ns *netns.Handle, cgroup, name, program string, env []string, args ...string) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	r := &running{Cmd: exec.Command(path, args...)}
	r.Env = append(os.Environ(), env...)
	r.Stderr = os.Stderr
	var err error
	if r.stdin, err = r.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if r.out, err = r.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		r.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	netnstest.Start(t, ns, r.Cmd)
	return r
}

// self is this program, which is others too.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p peer) start(t *testing.T, ns *netns.Handle, cgroup, name string) *running {
	t.Helper()
	spec, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, ns, cgroup, name, self(t), []string{peerVariable + "=" + string(spec)})
}

// says waits until the program has written a line.
func (r *running) says(t *testing.T, want string) {
	t.Helper()
	line := make([]byte, len(want)+1)
	if _, err := io.ReadFull(r.out, line); err != nil || string(line) != want+"\n" {
		t.Fatalf("%s says %q (%v), want %q", r.Path, line, err, want)
	}
}

func (r *running) ends(t *testing.T) {
	t.Helper()
	r.stdin.Close()
	if err := r.Wait(); err != nil {
		t.Fatalf("%s: %v", r.Path, err)
	}
}

// newNamespace makes a namespace for a test, and tells how the programs call it.
func newNamespace(t *testing.T) (*netns.Handle, Netns) {
	t.Helper()
	ns := netnstest.New(t)
	netnstest.KeepTimeWait(t, ns) // or else resets that nobody meant are counted, one in some thousands
	cookie, err := ns.Cookie()
	if errors.Is(err, errors.ErrUnsupported) {
		return ns, Netns(ns.Inode()) // before kernel 5.14
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns, Netns(cookie)
}

// newCgroup makes a cgroup, and returns its directory and number.
func newCgroup(t *testing.T) (string, uint64) {
	t.Helper()
	root := cgroupRoot(t)
	dir, err := os.MkdirTemp(root, "linger-trace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A cgroup is empty only some time after its last process has ended.
		for deadline := time.Now().Add(patience); os.Remove(dir) != nil && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return dir, st.Ino
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup2 is mounted")
	return ""
}
