package lab_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/tcp"
)

// startNginx runs nginx inside a node until the test ends. Its children share the
// listener, as those of most servers do.
func startNginx(t *testing.T, n *lab.Node, service netip.AddrPort, http string) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // often outside of PATH
		if _, err := os.Stat(path); err != nil {
			t.Skip("needs nginx (Debian package nginx-light)")
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`
daemon off;
user root;
worker_processes 2;
pid %[1]s/pid;
error_log stderr warn;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	%[2]s
	server {
		listen %[3]s;
		location / { return 200 "ok\n"; }
	}
}
`, dir, http, service)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var messages bytes.Buffer
	nginx := exec.Command(path, "-p", dir, "-c", config, "-e", "stderr")
	nginx.Stderr = &messages
	nginx.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM}
	if err := n.Do(nginx.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nginx.Process.Signal(unix.SIGTERM)
		if err := nginx.Wait(); err != nil {
			t.Errorf("nginx: %v: %s", err, messages.Bytes())
		}
	})
	local := tcp.Endpoint{Addr: service.Addr(), Port: service.Port()}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := rows(n)
		if err != nil {
			t.Fatal(err)
		}
		if count(all, tcp.Listen, local, tcp.Endpoint{}) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %s", messages.Bytes())
		}
	}
}

// A web server as it is found in the field, told not to keep connections alive.
func TestNginxThatClosesFirst(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			ctx := context3m(t)
			topology, err := lab.NewPair("client", "server")
			skipWithoutRoot(t, err)
			t.Cleanup(func() {
				if err := topology.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			service := netip.AddrPortFrom(topology.Nodes[1].Addr(ipv6), 80)
			startNginx(t, topology.Nodes[1], service, "keepalive_timeout 0;")
			client, err := topology.Nodes[0].Start(ctx, "lab-browser")
			if err != nil {
				t.Fatal(err)
			}
			dial := lab.DialSpec{
				To: []netip.AddrPort{service}, Count: 1500, PeerCloses: true,
				Request: "GET / HTTP/1.1\r\nHost: lab\r\n\r\n",
			}
			if done, err := client.Churn(ctx, dial); err != nil || done.Failed > 0 {
				t.Fatalf("churn: %+v, %v", done, err)
			}
			_, d := look(t, ctx, topology.Nodes...)
			if len(d.Findings) == 0 || d.Findings[0].Problem != diagnose.Slug("connection-churn") {
				t.Fatalf("want connection-churn first:\n%s", headlines(d))
			}
			check(t, d.Findings[0], lab.Expectation{
				Node:  topology.Nodes[1],
				Role:  tcp.Acceptor,
				Local: tcp.Endpoint{Addr: service.Addr(), Port: service.Port()},
				Owner: "nginx",
			})
		})
	}
}
