package cases

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"linger/internal/collect"
	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/lab/stage"
	"linger/internal/proof"
	"linger/internal/setting"
)

var proxyWithoutKeepalive = Case{Experiments: []lab.Experiment{nginxProxyProof, haproxyProxyProof}}

// The proxy listens on ServicePort, next to its clients; the backend on this port of
// the other node.
const backendPort = 9090

// proxied sends 4,000 requests through a proxy to a real nginx behind it, and records
// where the TIME_WAIT between the two is left, and what a diagnosis makes of it.
func proxied(proxy func(listen, backend netip.AddrPort) stage.Program, set ...lab.Sysctl) lab.Measure {
	return func(ctx context.Context, t *lab.Trial) error {
		edge, behind, err := t.Pair("proxy", "backend")
		if err != nil {
			return err
		}
		for _, s := range set {
			if err := s.Set(edge, behind); err != nil {
				return err
			}
		}
		listen, backend := t.Service(edge, stage.ServicePort), t.Service(behind, backendPort)
		// A page that is made as it is sent, by server-side includes, has no length: over
		// HTTP/1.0 its end is the end of the connection, which the backend closes.
		web := stage.Nginx(backend, 1, "keepalive_requests 100000; default_type text/html; ssi on;", `return 200 "ok\n";`)
		if err := behind.Run(ctx, web, backendPort); err != nil {
			return err
		}
		if err := edge.Run(ctx, proxy(listen, backend), stage.ServicePort); err != nil {
			return err
		}
		if err := browse(ctx, t, edge, listen); err != nil {
			return err
		}
		if err := stage.Settled(ctx, backendPort, edge, behind); err != nil {
			return err
		}
		if err := recordMade(t, edge, behind); err != nil {
			return err
		}
		return nameProblems(ctx, t, edge, behind)
	}
}

// browse sends 4,000 requests to a proxy from its own node. A browser keeps its own
// connections, so that all TIME_WAIT is that behind the proxy.
func browse(ctx context.Context, t *lab.Trial, edge *stage.Node, proxy netip.AddrPort) error {
	client, err := edge.Start(ctx, "lab-browser")
	if err != nil {
		return err
	}
	const connections, rounds = 10, 400
	done, err := client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{proxy}, Count: connections})
	if err == nil && done.Opened != connections {
		err = fmt.Errorf("%d of %d connections were opened: %s", done.Opened, connections, done.FirstFailure)
	}
	if err != nil {
		return err
	}
	asked, err := client.Ask(ctx, stage.AskSpec{
		Request: "GET / HTTP/1.1\r\nHost: lab\r\n\r\n", AnswerEnd: "\r\n0\r\n\r\n", Rounds: rounds,
	})
	t.Record("failed", float64(asked.Failed))
	return err
}

// recordMade records the connections to the backend and the time-wait sockets made of
// them, as either node's kernel has counted them.
func recordMade(t *lab.Trial, edge, behind *stage.Node) error {
	total := 0.0
	for quantity, node := range map[string]*stage.Node{"proxy_time_wait": edge, "backend_time_wait": behind} {
		n, err := node.Counter("TcpExtTW")
		if err != nil {
			return err
		}
		total += n
		t.Record(quantity, n)
	}
	t.Record("time_wait", total)
	opened, err := behind.Counter("TcpPassiveOpens")
	t.Record("opened", opened)
	return err
}

// nameProblems keeps the problems that a diagnosis of the nodes names.
func nameProblems(ctx context.Context, t *lab.Trial, nodes ...*stage.Node) error {
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
				t.RecordNamed(proof.Name{Problem: f.Problem, At: n.Name, Severity: f.Severity})
			}
		}
	}
	return nil
}

func nginxProxy(kept bool) func(listen, backend netip.AddrPort) stage.Program {
	return func(listen, backend netip.AddrPort) stage.Program {
		keeps, location := "", "proxy_pass http://backend;"
		if kept {
			keeps = "keepalive 16; keepalive_requests 100000; "
			location += ` proxy_http_version 1.1; proxy_set_header Connection "";`
		}
		http := fmt.Sprintf("keepalive_requests 100000; upstream backend { server %s; %s}", backend, keeps)
		return stage.Nginx(listen, 1, http, location)
	}
}

func haproxyProxy(kept bool) func(listen, backend netip.AddrPort) stage.Program {
	return func(listen, backend netip.AddrPort) stage.Program {
		if kept {
			return stage.HAProxy(listen, backend, "http-reuse always")
		}
		return stage.HAProxy(listen, backend, "option http-server-close")
	}
}

// proxyQuantities are those of the connections between the proxy and its backend.
func proxyQuantities() []proof.Quantity {
	return []proof.Quantity{
		{Name: "opened", Title: "connections to the backend, each of which ends in TIME_WAIT or by a reset", Unit: "connections",
			Better: proof.Less},
		{Name: "time_wait", Title: "time-wait sockets made of them (TW)", Unit: "sockets"},
		{Name: "proxy_time_wait", Title: "made at the proxy", Unit: "sockets"},
		{Name: "backend_time_wait", Title: "made at the backend", Unit: "sockets"},
		lab.Failures,
	}
}

// proxyArms are the same for both proxies. With a connection for each request a diagnosis
// has to name the backend, which closes them, and with kept ones nobody.
func proxyArms(name string, timeWait proof.Bound, proxy func(kept bool) func(listen, backend netip.AddrPort) stage.Program, off,
	on string) []lab.Arm {
	closed := proxy(false)
	names := func(a proof.Arm, names ...proof.Name) proof.Arm {
		a.Names = append([]proof.Name{}, names...)
		return a
	}
	churn := proof.Name{Problem: diagnose.ConnectionChurn, At: "backend"}
	return []lab.Arm{
		{
			Arm: names(base(name+" as "+off, proof.Exactly("failed", 0), proof.Exactly("opened", 4000), timeWait,
				proof.Exactly("proxy_time_wait", 0)), churn),
			Seconds: 4, Run: proxied(closed),
		},
		{
			Arm: names(remedy("keep-alive", "Keep the connections to the backend", on, proof.Works,
				proof.Exactly("failed", 0), proof.Between("opened", 1, 16), proof.Exactly("time_wait", 0))),
			Seconds: 4, Run: proxied(proxy(true)),
		},
		{
			Arm: names(turning("tcp_fin_timeout", folklore("fin-timeout", "A lower tcp_fin_timeout at both", "net.ipv4.tcp_fin_timeout=5",
				proof.NoEffect)), churn),
			Seconds: 4, Run: proxied(closed, lab.AtClient(setting.FinTimeout, "5"),
				lab.AtServer(setting.FinTimeout, "5")),
		},
		{
			Arm:     names(turning("tcp_tw_reuse", folklore("tw-reuse", "tcp_tw_reuse at both", "net.ipv4.tcp_tw_reuse=1", proof.NoEffect)), churn),
			Seconds: 4, Run: proxied(closed, lab.AtClient(setting.TWReuse, "1"),
				lab.AtServer(setting.TWReuse, "1")),
		},
	}
}

var nginxProxyProof = lab.Experiment{
	Name:       "proxy-without-keepalive",
	Title:      "nginx in front of nginx, without keep-alive to the backend",
	Question:   "A connection to the backend for each request: who holds the TIME_WAIT, and what ends it?",
	Setup:      "4,000 requests through a real nginx to a real nginx in another namespace",
	Quantities: proxyQuantities(),
	Arms: proxyArms("nginx", proof.Exactly("time_wait", 4000), nginxProxy, "it is before 1.29.7: HTTP/1.0 to its backend",
		`keepalive 16; proxy_http_version 1.1; proxy_set_header Connection "";`),
}

var haproxyProxyProof = lab.Experiment{
	Name:       "haproxy-without-keepalive",
	Title:      "HAProxy in front of nginx, without keep-alive to the backend",
	Question:   "The same with another proxy: does the TIME_WAIT lie where it lay?",
	Setup:      "4,000 requests through a real HAProxy to a real nginx in another namespace",
	Quantities: proxyQuantities(),
	// HAProxy resets what it has read to the end, if nginx was not faster with its FIN.
	Arms: proxyArms("HAProxy", proof.Between("time_wait", 1000, 4000), haproxyProxy, "option http-server-close has it",
		"http-reuse always"),
}
