package lab_test

import (
	"errors"
	"net/netip"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/tcp"
)

// A web server as it is found in the field, told not to keep connections alive.
func TestNginxThatClosesFirst(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(stagetest.Family(ipv6), func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			topology, err := stage.NewPair("client", "server")
			stagetest.NeedRoot(t, err)
			stagetest.Closing(t, topology)
			service := netip.AddrPortFrom(topology.Nodes[1].Addr(ipv6), 80)
			// Its children share the listener, as those of most servers do.
			nginx := stage.Nginx(service, 2, "keepalive_timeout 0;", `return 200 "ok\n";`)
			if err := topology.Nodes[1].Run(ctx, nginx, service.Port()); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			client, err := topology.Nodes[0].Start(ctx, "lab-browser")
			if err != nil {
				t.Fatal(err)
			}
			dial := stage.DialSpec{
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
			check(t, d.Findings[0], cases.Expectation{
				Node:  topology.Nodes[1],
				Role:  tcp.Acceptor,
				Local: tcp.Endpoint{Addr: service.Addr(), Port: service.Port()},
				Owner: "nginx",
			})
		})
	}
}
