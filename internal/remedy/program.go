package remedy

import (
	"strings"

	"linger/internal/setting"
)

// program is how one program, or all of one language, says something.
type program struct {
	// prefixes of the process names by which it is known.
	prefixes []string
	Example
}

// generic is how many programs are shown where the process tells none.
const generic = 3

// examplesFor chooses the lines for a process: those of the program that it is, or
// the most common ones where its name tells none.
func examplesFor(process string, known []program) []Example {
	var all []Example
	for _, p := range known {
		for _, prefix := range p.prefixes {
			if strings.HasPrefix(process, prefix) {
				return []Example{p.Example}
			}
		}
		if len(all) < generic {
			all = append(all, p.Example)
		}
	}
	return all
}

// How a client keeps its connections.
var poolingClients = []program{
	{nil, Example{"Go", `one http.Client for all; &http.Transport{MaxIdleConnsPerHost: 100}; read each body to its end`}},
	{[]string{"python", "gunicorn", "uwsgi", "celery", "uvicorn"}, Example{"Python", `s = requests.Session()  # once, then s.get(url)`}},
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx",
		`upstream u { server …; keepalive 64; }  proxy_http_version 1.1; proxy_set_header Connection "";`}},
	{[]string{"haproxy"}, Example{"HAProxy", `http-reuse safe  (and no "option httpclose" in the backend)`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `const agent = new http.Agent({ keepAlive: true })`}},
	{[]string{"java"}, Example{"Java", `one HttpClient for the whole program, not one for each request`}},
	{[]string{"envoy"}, Example{"Envoy", `leave max_requests_per_connection unset in the cluster`}},
	{[]string{"php", "apache2", "httpd"}, Example{"PHP", `new PDO($dsn, $user, $password, [PDO::ATTR_PERSISTENT => true])`}},
	{[]string{"ab"}, Example{"ab", `ab -k …`}},
}

// How a server lets its clients keep theirs.
var keepAliveServers = []program{
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `keepalive_timeout 75s; keepalive_requests 1000;`}},
	{[]string{"apache2", "httpd"}, Example{"Apache", `KeepAlive On`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `server.keepAliveTimeout = 65_000`}},
	{[]string{"haproxy"}, Example{"HAProxy", `option http-keep-alive  (in place of httpclose), timeout http-keep-alive 60s`}},
	{[]string{"gunicorn", "python"}, Example{"gunicorn", `--worker-class gthread --keep-alive 75  (sync workers close each time)`}},
	{[]string{"java"}, Example{"Tomcat", `<Connector keepAliveTimeout="60000" maxKeepAliveRequests="1000" …>`}},
}

// How a program closes what its peer has closed.
var closers = []program{
	{nil, Example{"Go", `defer resp.Body.Close(), defer conn.Close()`}},
	{[]string{"python", "gunicorn", "uwsgi", "celery", "uvicorn"}, Example{"Python", "with closing(sock): …, " +
		"with session.get(url, stream=True) as r: …"}},
	{[]string{"java"}, Example{"Java", `try (var in = response.body()) { … }`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `socket.on("end", () => socket.end())  (needed with allowHalfOpen)`}},
}

// How a program sets SO_LINGER with a time-out of zero.
var lingerers = []program{
	{nil, Example{"Go", `conn.(*net.TCPConn).SetLinger(0)`}},
	{[]string{"python"}, Example{"Python", `sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))`}},
	{[]string{"haproxy"}, Example{"HAProxy", `option nolinger  (in the backend only)`}},
	{[]string{"java"}, Example{"Java", `socket.setSoLinger(true, 0)`}},
}

// How a program binds its source address without taking a port.
var addressBinders = []program{
	{nil, Example{"Go", `net.Dialer{Control: …} with unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)`}},
	{[]string{"python"}, Example{"Python", `sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT, before bind((addr, 0))`}},
}

// How a program accepts faster.
var acceptors = []program{
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `worker_processes auto; multi_accept on; listen 80 reuseport;`}},
	{[]string{"gunicorn", "python", "uwsgi"}, Example{"gunicorn", `--workers 8 --worker-class gthread --threads 16`}},
	{[]string{"apache2", "httpd"}, Example{"Apache", `MaxRequestWorkers 400  (its limit is what fills the queue)`}},
	{[]string{"haproxy"}, Example{"HAProxy", `maxconn 100000  (at the limit it stops accepting)`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `no synchronous work in handlers; node:cluster, one process for each CPU`}},
	{[]string{"java"}, Example{"Tomcat", `<Connector maxConnections="8192" maxThreads="200" …>`}},
}

// How a program asks for a longer queue.
var backlogs = []program{
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `listen 80 backlog=4096;  (511 unless said)`}},
	{[]string{"python", "gunicorn", "uwsgi"}, Example{"gunicorn", `--backlog 4096; plain sockets: s.listen(4096)`}},
	{nil, Example{"Go", "net.Listen takes " + setting.Somaxconn + " when it listens: raise that, and restart"}},
	{[]string{"apache2", "httpd"}, Example{"Apache", `ListenBacklog 4096`}},
	{[]string{"haproxy"}, Example{"HAProxy", `bind :80 backlog 4096`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `server.listen({ port: 80, backlog: 4096 })`}},
	{[]string{"java"}, Example{"Tomcat", `<Connector acceptCount="4096" …>  (100 unless said)`}},
	{[]string{"redis-server", "valkey-server"}, Example{"Redis", `tcp-backlog 4096`}},
	{[]string{"postgres"}, Example{"PostgreSQL", `max_connections: its queue is twice that`}},
}

// How a program bounds the wait for its peer after its own end.
var halfClosers = []program{
	{nil, Example{"Go", `c.CloseWrite(); c.SetReadDeadline(time.Now().Add(10 * time.Second)); io.Copy(io.Discard, c); c.Close()`}},
	{[]string{"python", "gunicorn", "uwsgi", "celery"}, Example{"Python", `s.shutdown(socket.SHUT_WR); s.settimeout(10); …; s.close()`}},
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `lingering_time 10s; lingering_timeout 5s;`}},
	{[]string{"haproxy"}, Example{"HAProxy", `timeout client-fin 10s, timeout server-fin 10s`}},
}

// How a program ends a connection without a reset.
var finishers = []program{
	{nil, Example{"Go", `no SetLinger(0); io.Copy(io.Discard, io.LimitReader(conn, 64<<10)) before conn.Close()`}},
	{[]string{"python", "gunicorn", "uwsgi", "celery"}, Example{"Python", `s.shutdown(socket.SHUT_WR); while s.recv(65536): pass; s.close()`}},
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `reset_timedout_connection off; lingering_close on;`}},
	{[]string{"haproxy"}, Example{"HAProxy", `no option nolinger`}},
	{[]string{"java"}, Example{"Java", `no setSoLinger(true, 0); shutdownOutput(), then read until -1`}},
}

// How a program probes idle connections.
var probers = []program{
	{nil, Example{"Go", "net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, " +
		"Interval: 10 * time.Second, Count: 5}}"}},
	{[]string{"python", "gunicorn", "uwsgi", "celery"}, Example{"Python", "s.setsockopt(SOL_SOCKET, " +
		"SO_KEEPALIVE, 1); s.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 60)"}},
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `listen 80 so_keepalive=60s:10s:5; proxy_socket_keepalive on;`}},
	{[]string{"haproxy"}, Example{"HAProxy", `option clitcpka, option srvtcpka; clitcpka-idle 60s`}},
	{[]string{"postgres"}, Example{"PostgreSQL", `tcp_keepalives_idle = 60, tcp_user_timeout = 30000`}},
	{[]string{"redis-server", "valkey-server"}, Example{"Redis", `tcp-keepalive 60`}},
	{[]string{"sshd"}, Example{"sshd", `ClientAliveInterval 60`}},
}

// How a program gives idle connections up.
var idlers = []program{
	{nil, Example{"Go", `&http.Transport{IdleConnTimeout: 30 * time.Second}`}},
	{[]string{"python", "gunicorn", "uwsgi", "celery"}, Example{"Python", "urllib3 and requests keep for ever: " +
		"close the session, or retry once on a reset"}},
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `upstream u { keepalive 64; keepalive_timeout 30s; }`}},
	{[]string{"haproxy"}, Example{"HAProxy", `timeout http-keep-alive 30s; pool-purge-delay 30s`}},
	{[]string{"node", "MainThread"}, Example{"Node.js", `new http.Agent({ keepAlive: true, timeout: 30_000 })`}},
	{[]string{"java"}, Example{"Java", `-Djdk.httpclient.keepalive.timeout=30`}},
}
