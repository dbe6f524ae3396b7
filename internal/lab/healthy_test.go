package lab_test

import (
	"net/netip"
	"testing"
	"time"

	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/tcp"
)

// pairOf makes two joined nodes, with a service on one and a client on the other.
func pairOf(t *testing.T, closing stage.Closing) (topology *stage.Topology, client, server *stage.Worker, service netip.AddrPort) {
	t.Helper()
	ctx := stagetest.Context(t)
	topology, err := stage.NewPair("client", "server")
	stagetest.NeedRoot(t, err)
	stagetest.Closing(t, topology)
	if server, err = topology.Nodes[1].Start(ctx, "healthy-server"); err != nil {
		t.Fatal(err)
	}
	service = netip.AddrPortFrom(topology.Nodes[1].IPv4, 8080)
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: closing}); err != nil {
		t.Fatal(err)
	}
	if client, err = topology.Nodes[0].Start(ctx, "healthy-client"); err != nil {
		t.Fatal(err)
	}
	return topology, client, server, service
}

// Thousands of live connections that are used again and again: ports in use, no
// TIME_WAIT.
func TestBusyKeepAliveIsHealthy(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	const connections = 3000
	if _, err := client.Hold(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: connections}); err != nil {
		t.Fatal(err)
	}
	if err := client.Talk(ctx); err != nil {
		t.Fatal(err)
	}
	s, d := look(t, ctx, topology.Nodes...)
	noAlarm(t, d)
	if len(d.Findings) != 0 {
		t.Errorf("findings on a healthy host:\n%s", headlines(d))
	}
	if n := s.Namespaces[0].States[tcp.Established]; n != connections {
		t.Errorf("%d connections are established, want %d", n, connections)
	}
}

// Some churn beside a long-lived pool is what most hosts do.
func TestModestChurnIsHealthy(t *testing.T) {
	t.Parallel()
	for name, closing := range map[string]stage.Closing{"client closes": stage.CloseSecond, "server closes": stage.CloseFirst} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := stagetest.Context(t)
			topology, client, _, service := pairOf(t, closing)
			dial := stage.DialSpec{To: []netip.AddrPort{service}, PeerCloses: closing == stage.CloseFirst}
			// Ten a second over the last minute, most of it a while ago.
			dial.Count = 600
			if done, err := client.Churn(ctx, dial); err != nil || done.Failed > 0 {
				t.Fatalf("churn: %+v, %v", done, err)
			}
			dial.Count, dial.Rate, dial.Batch = 0, 10, 1
			if err := client.Begin(ctx, dial); err != nil {
				t.Fatal(err)
			}
			wait(t, time.Now().Add(12*time.Second))
			_, d := look(t, ctx, topology.Nodes...)
			noAlarm(t, d)
			done, err := client.End(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if done.Opened == 0 || done.Failed > 0 {
				t.Errorf("the churn was none: %+v", done)
			}
		})
	}
}

// healthyLoad runs a load that a host bears for ever, for as long as that takes to
// tell, and holds that no connect fails and nothing is called wrong.
func healthyLoad(t *testing.T, topology *stage.Topology, client *stage.Worker, dial stage.DialSpec, least int) {
	t.Helper()
	ctx := stagetest.Context(t)
	if err := client.Begin(ctx, dial); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Now().Add(time.Duration(float64(least)/dial.Rate*float64(time.Second))))
	_, d := look(t, ctx, topology.Nodes...)
	noAlarm(t, d)
	done, err := client.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if done.NoPort+done.Failed > 0 || done.Opened == 0 {
		t.Errorf("the load was not borne: %+v", done)
	}
}

// Connects come to more than there are ports, and take over what has waited for a
// second.
func TestPortsThatAreTakenOverAreHealthy(t *testing.T) {
	t.Parallel()
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	for key, value := range map[string]string{"net.ipv4.tcp_tw_reuse": "1", "net.ipv4.ip_local_port_range": "40000 47999"} {
		if err := topology.Nodes[0].Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	healthyLoad(t, topology, client, stage.DialSpec{To: []netip.AddrPort{service}, Rate: 1000, Batch: 25}, 9_000)
}

// A proxy and its backend on one host: tcp_tw_reuse at 2, its default, is enough.
func TestLoopbackChurnIsHealthy(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, err := stage.NewLoopback("host")
	stagetest.NeedRoot(t, err)
	stagetest.Closing(t, topology)
	host := topology.Nodes[0]
	if err := host.Set("net.ipv4.ip_local_port_range", "40000 41999"); err != nil {
		t.Fatal(err)
	}
	server, err := host.Start(ctx, "healthy-server")
	if err != nil {
		t.Fatal(err)
	}
	service := netip.AddrPortFrom(host.IPv4, 8080)
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	client, err := host.Start(ctx, "healthy-client")
	if err != nil {
		t.Fatal(err)
	}
	healthyLoad(t, topology, client, stage.DialSpec{To: []netip.AddrPort{service}, Rate: 300, Batch: 10}, 3000)
}

// A crawler closes hundreds of connections a second, and few to any one place.
func TestCrawlerIsHealthy(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, server, service := pairOf(t, stage.CloseSecond)
	var to []netip.AddrPort
	for port := uint16(10_000); port < 12_000; port++ {
		to = append(to, netip.AddrPortFrom(service.Addr(), port))
	}
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: to, Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	healthyLoad(t, topology, client, stage.DialSpec{To: to, Rate: 500, Batch: 10}, 4000)
}

// A batch job takes a quarter of the ports in a moment, and is done: what it left
// goes by itself.
func TestBurstThatIsOverIsHealthy(t *testing.T) {
	t.Parallel()
	ctx := stagetest.Context(t)
	topology, client, _, service := pairOf(t, stage.CloseSecond)
	if done, err := client.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: 7500}); err != nil ||
		done.Failed+done.NoPort > 0 {
		t.Fatalf("burst: %+v, %v", done, err)
	}
	wait(t, time.Now().Add(3*time.Second)) // it shows that nothing follows
	_, d := look(t, ctx, topology.Nodes...)
	noAlarm(t, d)
}
