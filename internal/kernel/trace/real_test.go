package trace

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"linger/internal/kernel/netns"
	"linger/internal/tcp"
)

// pythonServer accepts connections and closes each first, or last.
const pythonServer = `
import socket, sys
host = sys.argv[3]
s = socket.create_server((host, 8000), backlog=512, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
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
    c = socket.create_connection((sys.argv[3], 8000))
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
	server { listen %[2]s; location / { return 200 "x"; } }
}
`

// httpClient asks a web server for its page, and waits for the server to close.
const httpClient = `
import socket, sys
for _ in range(int(sys.argv[1])):
    c = socket.create_connection((sys.argv[2], 8000))
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
func python(t *testing.T, ns *netns.Handle, cgroup, name, script string, args ...string) *running {
	t.Helper()
	return start(t, ns, cgroup, name, program(t, "/usr/bin/python3"), nil, append([]string{"-c", script}, args...)...)
}

// listens waits until somebody listens on port 8000.
func listens(t *testing.T, ns *netns.Handle) {
	t.Helper()
	listening := regexp.MustCompile(`:1F40 0+:0000 0A `)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var text []byte
		if err := ns.Do(func() error {
			for _, name := range []string{"tcp", "tcp6"} {
				part, err := os.ReadFile("/proc/thread-self/net/" + name)
				if err != nil {
					return err
				}
				text = append(text, part...)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if listening.Match(text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody listens")
		}
	}
}

// TestRealPrograms: what programs of others do, counted to the last connection, by IPv4 and IPv6,
// each program in a cgroup of its own.
func TestRealPrograms(t *testing.T) {
	const n = 1000
	closed := func(here bool) tally {
		if here {
			return tally{"opened": n, "closed-here": n, "handed-over": n}
		}
		return tally{"opened": n, "closed-there": n}
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		server, client := who{"the-server", tcp.Acceptor}, who{"the-client", tcp.Connector}
		for name, run := range map[string]func(t *testing.T, ns *netns.Handle, serverCgroup, clientCgroup string) (serverFirst bool){
			"python, the client closes first": func(t *testing.T, ns *netns.Handle, serverCgroup, clientCgroup string) bool {
				s := python(t, ns, serverCgroup, server.process, pythonServer, strconv.Itoa(n), "last", host)
				s.says(t, "ready")
				python(t, ns, clientCgroup, client.process, pythonClient, strconv.Itoa(n), "first", host).ends(t)
				s.ends(t)
				return false
			},
			"python, the client closes last": func(t *testing.T, ns *netns.Handle, serverCgroup, clientCgroup string) bool {
				s := python(t, ns, serverCgroup, server.process, pythonServer, strconv.Itoa(n), "first", host)
				s.says(t, "ready")
				python(t, ns, clientCgroup, client.process, pythonClient, strconv.Itoa(n), "last", host).ends(t)
				s.ends(t)
				return true
			},
			"nginx": func(t *testing.T, ns *netns.Handle, serverCgroup, clientCgroup string) bool {
				dir := t.TempDir()
				config := filepath.Join(dir, "nginx.conf")
				if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, net.JoinHostPort(host, "8000")), 0o644); err != nil {
					t.Fatal(err)
				}
				start(t, ns, serverCgroup, server.process, program(t, "nginx"), nil, "-p", dir, "-c", config, "-g", "user root;")
				listens(t, ns)
				python(t, ns, clientCgroup, client.process, httpClient, strconv.Itoa(n), host).ends(t)
				return true
			},
		} {
			t.Run(host+" "+name, func(t *testing.T) {
				ns, id := newNamespace(t)
				serverCgroup, serverNumber := newCgroup(t)
				clientCgroup, clientNumber := newCgroup(t)
				tr := follow(t, Options{Netns: []Netns{id}})
				serverFirst := run(t, ns, serverCgroup, clientCgroup)
				found := eventually(t, tr, id, map[who]tally{server: closed(serverFirst), client: closed(!serverFirst)})
				if a, b := found[server].Cgroup, found[client].Cgroup; a != serverNumber || b != clientNumber {
					t.Errorf("the cgroups are %d and %d, want %d and %d", a, b, serverNumber, clientNumber)
				}
			})
		}
		t.Run(host+" redis-benchmark", func(t *testing.T) {
			ns, id := newNamespace(t)
			tr := follow(t, Options{Netns: []Netns{id}})
			start(t, ns, "", server.process, program(t, "redis-server"), nil,
				"--port", "8000", "--bind", host, "--save", "", "--dir", t.TempDir(), "--logfile", "log")
			listens(t, ns)
			// -k 0 makes a connection for each of 1,000 requests, 20 at a time.
			bench := start(t, ns, "", client.process, program(t, "redis-benchmark"), nil, "-h", host,
				"-p", "8000", "-k", "0", "-n", strconv.Itoa(n), "-c", "20", "-t", "ping_mbulk", "-q")
			bench.Stdout = nil
			bench.Wait()
			for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
				found := groupsOf(t, tr, id)
				s, c := found[server], found[client]
				// How many it opens beyond n is its own affair: the two ends must agree, and all
				// be closed by the client.
				ends := c.Endings[ClosedHere] + c.Endings[Aborted]
				want := tally{
					"opened": c.Opened, "closed-there": s.Endings[ClosedThere],
					"reset-there": s.Endings[ResetThere], "resets-received": s.ResetsReceived,
				}
				if c.Opened >= n && ends == c.Opened && s.Endings[ClosedThere]+s.Endings[ResetThere] == ends &&
					c.Endings[ClosedThere] == 0 && want.agrees(s.summary()) {
					t.Logf("redis-benchmark opened %d", c.Opened)
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("redis-benchmark %v, redis-server %v", c.summary(), s.summary())
				}
			}
		})
	}
}
