package trace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/tcp"
)

// pythonServer accepts connections and closes each first, or last.
const pythonServer = `
import socket, sys
s = socket.create_server(("127.0.0.1", 8000), backlog=512)
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    c, _ = s.accept()
    if sys.argv[2] == "last":
        while c.recv(4096): pass
    c.close()
`

// pythonClient opens connections, and closes each first or last.
const pythonClient = `
import socket, sys
for _ in range(int(sys.argv[1])):
    c = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    if sys.argv[2] == "last":
        while c.recv(4096): pass
    c.close()
`

// nginxConfig is of one server in two processes, that closes each connection after its answer.
const nginxConfig = `
daemon off; master_process on; worker_processes 1; pid %[1]s/pid; error_log stderr crit;
events {}
http {
	access_log off; keepalive_timeout 0; client_body_temp_path %[1]s; proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen 127.0.0.1:8000; location / { return 200 "x"; } }
}
`

// httpClient asks a web server for its page, and waits for the server to close.
const httpClient = `
import socket, sys
for _ in range(int(sys.argv[1])):
    c = socket.create_connection(("127.0.0.1", 8000))
    c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while c.recv(4096): pass
    c.close()
`

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		t.Skipf("%s is not installed (scripts/test-peers)", name)
	}
	return path
}

// python starts a script of the Debian package's Python under a name.
func python(t *testing.T, ns *netns.Handle, name, script string, args ...string) *running {
	t.Helper()
	return start(t, ns, "", name, program(t, "/usr/bin/python3"), nil, append([]string{"-c", script}, args...)...)
}

// listens waits until somebody listens on a port of 127.0.0.1.
func listens(t *testing.T, ns *netns.Handle, port int) {
	t.Helper()
	want := fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A ", port)
	deadline := time.Now().Add(patience)
	for {
		var text []byte
		if err := ns.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/tcp"); return err }); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens on port %d", port)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestRealPrograms: what programs of others do, counted to the last connection.
func TestRealPrograms(t *testing.T) {
	const n = 1000
	closed := func(here bool) counts {
		if here {
			return counts{"opened": n, "closed-here": n, "handed-over": n}
		}
		return counts{"opened": n, "closed-there": n}
	}
	for _, order := range []struct {
		server, client string
		here           bool
	}{{"last", "first", true}, {"first", "last", false}} {
		t.Run("python, the client closes "+order.client, func(t *testing.T) {
			ns, id := newNamespace(t)
			tr := follow(t, Options{Netns: []Netns{id}})
			s := python(t, ns, "py-server", pythonServer, strconv.Itoa(n), order.server)
			s.says(t, "ready")
			python(t, ns, "py-client", pythonClient, strconv.Itoa(n), order.client, "8000").ends(t)
			s.ends(t)
			eventually(t, tr, id, map[who]counts{
				{"py-server", tcp.Acceptor}:  closed(!order.here),
				{"py-client", tcp.Connector}: closed(order.here),
			})
		})
	}
	t.Run("nginx", func(t *testing.T) {
		ns, id := newNamespace(t)
		tr := follow(t, Options{Netns: []Netns{id}})
		dir := t.TempDir()
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir), 0o644); err != nil {
			t.Fatal(err)
		}
		start(t, ns, "", "nginx", program(t, "nginx"), nil, "-p", dir, "-c", config, "-g", "user root;")
		listens(t, ns, 8000)
		python(t, ns, "py-client", httpClient, strconv.Itoa(n)).ends(t)
		eventually(t, tr, id, map[who]counts{
			{"nginx", tcp.Acceptor}:      closed(true),
			{"py-client", tcp.Connector}: closed(false),
		})
	})
	t.Run("redis", func(t *testing.T) {
		ns, id := newNamespace(t)
		tr := follow(t, Options{Netns: []Netns{id}})
		start(t, ns, "", "redis-server", program(t, "redis-server"), nil,
			"--port", "8000", "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--logfile", "log")
		listens(t, ns, 8000)
		// -k 0 makes a connection for each of 1,000 requests, 20 at a time.
		bench := start(t, ns, "", "redis-benchmark", program(t, "redis-benchmark"), nil,
			"-p", "8000", "-k", "0", "-n", strconv.Itoa(n), "-c", "20", "-t", "ping_mbulk", "-q")
		bench.Stdout = nil
		bench.Wait()
		client := who{"redis-benchmark", tcp.Connector}
		deadline := time.Now().Add(patience)
		for {
			found := groupsOf(t, tr, id)
			s, c := found[who{"redis-server", tcp.Acceptor}], found[client]
			// How many it opens beyond n is its own affair: the two ends must agree, and all
			// be closed by the client.
			ends := c.Endings[ClosedHere] + c.Endings[Aborted]
			if c.Opened >= n && s.Opened == c.Opened && ends == c.Opened && c.Live == 0 && s.Live == 0 &&
				s.Endings[ClosedThere]+s.Endings[ResetThere] == ends && c.Endings[ClosedThere] == 0 && s.Endings[ClosedHere] == 0 {
				t.Logf("redis-benchmark opened %d", c.Opened)
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("redis-benchmark %v, redis-server %v", c.summary(), s.summary())
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}
