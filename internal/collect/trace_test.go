package collect_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"linger/internal/collect"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// patience bounds what should take a moment.
const patience = 30 * time.Second

// A container is told by the cgroup of its sockets when all its processes have ended.
func TestTraceNamesTheContainerOfEndedProcesses(t *testing.T) {
	const id = "3f1c9d2b7a6e5f4038271605948372615049382716059483726150493827abcd"
	const processes = 50
	cgroup := newCgroup(t, "docker-"+id+".scope")
	trace, err := collect.StartTrace(t.Context(), collect.TraceOptions{Netns: self()})
	if err != nil {
		t.Skip("no tracing here: ", err)
	}
	defer trace.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1)) // until the other end has closed
			c.Close()
		}
	}()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for range processes {
		shell := exec.Command("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", port))
		shell.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if out, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	remote := tcp.Endpoint{Addr: l.Addr().(*net.TCPAddr).AddrPort().Addr(), Port: uint16(port)}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		all, err := trace.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var found []snapshot.TracedGroup
		for _, g := range all.Groups {
			if g.Role == tcp.Connector && g.Remote == remote {
				found = append(found, g)
			}
		}
		if len(found) == 1 && found[0].ClosedHere == processes && found[0].Container == id[:12] && found[0].Process == "bash" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %d connections of bash in %s, got %+v", processes, id[:12], found)
		}
	}
}

func newCgroup(t *testing.T, name string) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
			continue
		}
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skip("only root can make a cgroup: ", err)
		}
		t.Cleanup(func() {
			// It is empty only some time after its last process has ended.
			for deadline := time.Now().Add(patience); os.Remove(dir) != nil && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
		})
		return dir
	}
	t.Skip("no cgroup2 is mounted")
	return ""
}
