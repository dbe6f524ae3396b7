package remedy

import "strings"

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
	{[]string{"nginx", "openresty", "angie"}, Example{"nginx", `upstream u { server …; keepalive 64; }  proxy_http_version 1.1; proxy_set_header Connection "";`}},
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
	{[]string{"python", "gunicorn", "uwsgi", "celery", "uvicorn"}, Example{"Python", `with closing(sock): …, with session.get(url, stream=True) as r: …`}},
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
