package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/proof"
	"linger/internal/tcp"
)

// The proxy listens on servicePort, next to its clients; the backend on this port of
// the other node.
const backendPort = 9090

type endpoint = netip.AddrPort

// program is a real server that is run in a node.
type program struct {
	name, debian string
	// config is the text of its configuration, in which DIR is its directory; args
	// are its arguments with the file of that text.
	config string
	args   func(file, dir string) []string
}

func nginx(listen endpoint, http, location string) program {
	return program{
		name: "nginx", debian: "nginx-light",
		config: fmt.Sprintf(`
daemon off;
user root;
worker_processes 1;
pid DIR/pid;
error_log stderr crit;
events { worker_connections 2048; }
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	%s
	server { listen %s; location / { %s } }
}
`, http, listen, location),
		args: func(file, dir string) []string { return []string{"-p", dir, "-c", file, "-e", "stderr"} },
	}
}

func haproxy(listen, backend endpoint, kept string) program {
	return program{
		name: "haproxy", debian: "haproxy",
		config: fmt.Sprintf(`
global
	maxconn 2048
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	%s
listen proxy
	bind %s
	server backend %s
`, kept, listen, backend),
		args: func(file, _ string) []string { return []string{"-db", "-q", "-f", file} },
	}
}

// start runs the program in a node, under a worker, and waits until it listens.
func (p program) start(ctx context.Context, t *Trial, n *Node, port uint16) error {
	path, err := exec.LookPath(p.name)
	if err != nil {
		path = "/usr/sbin/" + p.name // often outside of PATH
		if !exists(path) {
			return fmt.Errorf("%w: needs %s (Debian package %s)", errors.ErrUnsupported, p.name, p.debian)
		}
	}
	dir := filepath.Join(os.TempDir(), ownName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	t.Defer(func() error { return os.RemoveAll(dir) })
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(p.config, "DIR", dir)), 0o600); err != nil {
		return err
	}
	keeper, err := n.Start(ctx, "lab-"+p.name)
	if err != nil {
		return err
	}
	if err := keeper.Run(ctx, append([]string{path}, p.args(file, dir)...)...); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; sleep(ctx, 10*time.Millisecond) {
		listening, err := n.count(ctx, port, tcp.Listen)
		if err != nil || listening > 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen", p.name)
		}
	}
}

// proxied sends 4,000 requests through a proxy to a real nginx behind it, and records
// where the TIME_WAIT between the two is left, and what a diagnosis makes of it.
func proxied(proxy func(listen, backend endpoint) program, set ...setting) func(context.Context, *Trial) error {
	return func(ctx context.Context, t *Trial) error {
		edge, behind, err := t.Pair("proxy", "backend")
		if err != nil {
			return err
		}
		for _, s := range set {
			node := edge
			if s.at == atServer {
				node = behind
			}
			if err := node.Set(s.key, s.value); err != nil {
				return err
			}
		}
		listen, backend := t.service(edge, servicePort), t.service(behind, backendPort)
		// A page that is made as it is sent, by server-side includes, has no length: over
		// HTTP/1.0 its end is the end of the connection, which the backend closes.
		if err := nginx(backend, "keepalive_requests 100000; default_type text/html; ssi on;", `return 200 "ok\n";`).start(ctx, t, behind, backendPort); err != nil {
			return err
		}
		if err := proxy(listen, backend).start(ctx, t, edge, servicePort); err != nil {
			return err
		}
		client, err := edge.Start(ctx, "lab-browser")
		if err != nil {
			return err
		}
		// A browser keeps its own connections, so that all TIME_WAIT is that behind the proxy.
		const connections, rounds = 10, 400
		done, err := client.Hold(ctx, DialSpec{To: []netip.AddrPort{listen}, Count: connections})
		if err == nil && done.Opened != connections {
			err = fmt.Errorf("%d of %d connections were opened: %s", done.Opened, connections, done.FirstFailure)
		}
		if err != nil {
			return err
		}
		asked, err := client.Ask(ctx, AskSpec{Request: "GET / HTTP/1.1\r\nHost: lab\r\n\r\n", AnswerEnd: "\r\n0\r\n\r\n", Rounds: rounds})
		if err != nil {
			return err
		}
		t.Record("failed", float64(asked.Failed))
		if err := settledAt(ctx, backendPort, edge, behind); err != nil {
			return err
		}
		made := 0.0
		for quantity, node := range map[string]*Node{"proxy_time_wait": edge, "backend_time_wait": behind} {
			n, err := node.counter("TcpExtTW")
			if err != nil {
				return err
			}
			made += n
			t.Record(quantity, n)
		}
		t.Record("time_wait", made)
		opened, err := behind.counter("TcpPassiveOpens")
		if err != nil {
			return err
		}
		t.Record("opened", opened)
		return t.name(ctx, edge, behind)
	}
}

// name keeps the problems that a diagnosis of the nodes names.
func (t *Trial) name(ctx context.Context, nodes ...*Node) error {
	o := collect.Options{Window: time.Second}
	for _, n := range nodes {
		o.Netns = append(o.Netns, n.Path())
	}
	s, err := collect.Collect(ctx, o)
	if err != nil {
		return err
	}
	for _, f := range diagnose.Judge(s, diagnose.DefaultThresholds()).Findings {
		for _, n := range nodes {
			if n.Inode() == f.Netns.Inode && f.Problem != diagnose.ResourcePressure {
				t.run.Named = append(t.run.Named, fmt.Sprintf("%s at the %s (%s)", f.Problem, n.Name, f.Severity))
			}
		}
	}
	return nil
}

func nginxProxy(kept bool) func(listen, backend endpoint) program {
	return func(listen, backend endpoint) program {
		http := fmt.Sprintf("keepalive_requests 100000; upstream backend { server %s; }", backend)
		location := "proxy_pass http://backend;"
		if kept {
			http = fmt.Sprintf("keepalive_requests 100000; upstream backend { server %s; keepalive 16; keepalive_requests 100000; }", backend)
			location += ` proxy_http_version 1.1; proxy_set_header Connection "";`
		}
		return nginx(listen, http, location)
	}
}

func haproxyProxy(kept bool) func(listen, backend endpoint) program {
	return func(listen, backend endpoint) program {
		if kept {
			return haproxy(listen, backend, "http-reuse always")
		}
		return haproxy(listen, backend, "option http-server-close")
	}
}

// proxyQuantities are those of the connections between the proxy and its backend.
func proxyQuantities() []proof.Quantity {
	return []proof.Quantity{
		{Name: "opened", Title: "connections to the backend, each of which ends in TIME_WAIT or by a reset", Unit: "connections", Better: proof.Less},
		{Name: "time_wait", Title: "time-wait sockets made of them (TW)", Unit: "sockets"},
		{Name: "proxy_time_wait", Title: "made at the proxy", Unit: "sockets"},
		{Name: "backend_time_wait", Title: "made at the backend", Unit: "sockets"},
		failures,
	}
}

// proxyArms are the same for both proxies. With a connection for each request a diagnosis
// has to name the backend, which closes them, and with kept ones nobody.
func proxyArms(name string, timeWait proof.Bound, proxy func(kept bool) func(listen, backend endpoint) program, off, on string) []Arm {
	closed := proxy(false)
	names := func(a proof.Arm, names ...string) proof.Arm {
		a.Names = append([]string{}, names...)
		return a
	}
	const churn = "connection-churn at the backend"
	return []Arm{
		{Arm: names(base(name+" as "+off, proof.Exactly("failed", 0), proof.Exactly("opened", 4000), timeWait, proof.Exactly("proxy_time_wait", 0)), churn), Seconds: 4, Run: proxied(closed)},
		{Arm: names(remedy("keep-alive", "Keep the connections to the backend", on, proof.Works, proof.Exactly("failed", 0), proof.Between("opened", 1, 16), proof.Exactly("time_wait", 0))), Seconds: 4, Run: proxied(proxy(true))},
		{Arm: names(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout at both", "net.ipv4.tcp_fin_timeout=5", proof.NoEffect)), churn), Seconds: 4, Run: proxied(closed, setting{atClient, "net.ipv4.tcp_fin_timeout", "5"}, setting{atServer, "net.ipv4.tcp_fin_timeout", "5"})},
		{Arm: names(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at both", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), churn), Seconds: 4, Run: proxied(closed, setting{atClient, "net.ipv4.tcp_tw_reuse", "1"}, setting{atServer, "net.ipv4.tcp_tw_reuse", "1"})},
	}
}

var nginxProxyProof = Experiment{
	Name:       "proxy-without-keepalive",
	Title:      "nginx in front of nginx, without keep-alive to the backend",
	Question:   "A connection to the backend for each request: who holds the TIME_WAIT, and what ends it?",
	Setup:      "4,000 requests through a real nginx to a real nginx in another namespace",
	Quantities: proxyQuantities(),
	Arms:       proxyArms("nginx", proof.Exactly("time_wait", 4000), nginxProxy, "it is before 1.29.7: HTTP/1.0 to its backend", `keepalive 16; proxy_http_version 1.1; proxy_set_header Connection "";`),
}

var haproxyProxyProof = Experiment{
	Name:       "haproxy-without-keepalive",
	Title:      "HAProxy in front of nginx, without keep-alive to the backend",
	Question:   "The same with another proxy: does the TIME_WAIT lie where it lay?",
	Setup:      "4,000 requests through a real HAProxy to a real nginx in another namespace",
	Quantities: proxyQuantities(),
	// HAProxy resets what it has read to the end, if nginx was not faster with its FIN.
	Arms: proxyArms("HAProxy", proof.Between("time_wait", 2000, 4000), haproxyProxy, "option http-server-close has it", "http-reuse always"),
}
