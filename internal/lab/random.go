package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/proof"
)

// World is what a seed draws: hosts on a switch, one problem between two of them or
// none, and beside it what is healthy. The same seed draws the same world.
type World struct {
	Seed  uint64
	Hosts int

	// Fault is empty where nothing is wrong.
	Fault diagnose.Slug
	// Client and Server are the hosts of the fault; they may be one.
	Client, Server int
	Options        Options
	// SecondAddress has the service of the fault on a second address of its host.
	SecondAddress bool
	// OneEnd leaves the namespace of the fault's other end unread, as if it were on another
	// machine.
	OneEnd bool
	// Later is how long after the fault can be seen it is looked for.
	Later time.Duration

	Bystanders []Bystander
}

// Bystander is a healthy load beside the fault.
type Bystander struct {
	Kind BystanderKind
	// From and To are the hosts of its client and service; they may be one.
	From, To int
	IPv6     bool
	// Connections are those that stay open, or came before the look.
	Connections int
	// Rate is how many connections a second it opens and closes.
	Rate float64
	// Addresses is how many addresses of either host it uses, one or two.
	Addresses int
	// Wildcard: its service listens on all addresses of both families, by one socket.
	Wildcard bool
	// SamePort: its service has the port of the fault's, on another host.
	SamePort bool
}

// BystanderKind is what a bystander does.
type BystanderKind string

// Idle connections; a Pool that is used; churn in which the client or the service
// closes first, some of it a while ago (BurstOfChurn); a Crawler that closes few
// connections to each of many services; Loopback churn, and that of a Reuser, whose
// ports are taken over in time; a Relay that serves and connects, as a proxy does;
// Stragglers, whose service has not closed some connections yet; Accidents, which end
// by a reset; a Sharer, which has a pool to the very service of the fault.
const (
	Idle         BystanderKind = "idle"
	Pool         BystanderKind = "pool"
	ClientChurn  BystanderKind = "client-churn"
	ServiceChurn BystanderKind = "service-churn"
	BurstOfChurn BystanderKind = "burst"
	Crawler      BystanderKind = "crawler"
	Loopback     BystanderKind = "loopback"
	Reuser       BystanderKind = "reuser"
	Relay        BystanderKind = "relay"
	Stragglers   BystanderKind = "stragglers"
	Accidents    BystanderKind = "accidents"
	Sharer       BystanderKind = "sharer"
)

const (
	mostHosts      = 5
	mostBystanders = 5
	crawledPorts   = 100
	defaultPorts   = 28_232 // of ip_local_port_range at its default
)

// sizes are how many connections a fault may have: from where its rule calls it one
// to what is built in a moment.
var sizes = map[diagnose.Slug][2]int{
	"accept-queue-overflow": {25, 120},
	"address-in-use":        {20, 400},
	"bind-before-connect":   {700, 950},
	"client-closes-first":   {1600, 4000},
	"close-wait-leak":       {110, 600},
	"connection-churn":      {1600, 4000},
	"fin-timeout":           {5, 100},
	"fin-wait2-pileup":      {110, 600},
	"orphan-pileup":         {110, 600},
	"port-exhaustion":       {300, 3000},
	"resource-pressure":     {10, 40},
	"time-wait-overflow":    {400, 3000},
	"tw-reuse":              {400, 1100},
}

// oneHost are the faults whose client and service may be on one host: the others need
// a link that is cut, or addresses that are translated.
var oneHost = []diagnose.Slug{
	"accept-queue-overflow", "bind-before-connect", "client-closes-first", "close-wait-leak", "connection-churn",
	"fin-timeout", "fin-wait2-pileup", "port-exhaustion", "time-wait-overflow", "tw-reuse", "vanished-connections",
}

// Draw draws the world of a seed.
func Draw(seed uint64) World {
	r := rand.New(rand.NewPCG(seed, 0))
	w := World{Seed: seed, Hosts: 2 + r.IntN(mostHosts-1)}
	w.drawFault(r)
	for range r.IntN(mostBystanders + 1) {
		if b, ok := w.drawBystander(r); ok {
			w.Bystanders = append(w.Bystanders, b)
		}
	}
	return w
}

func (w *World) drawFault(r *rand.Rand) {
	var possible []diagnose.Slug
	for _, s := range Scenarios() {
		if s.Cannot == "" {
			possible = append(possible, s.Slug)
		}
	}
	if r.IntN(6) > 0 {
		w.Fault = possible[r.IntN(len(possible))]
	}
	order := r.Perm(w.Hosts)
	w.Client, w.Server = order[0], order[1]
	if slices.Contains(oneHost, w.Fault) && r.IntN(4) == 0 {
		w.Server = w.Client
	}
	w.SecondAddress = w.Client != w.Server && r.IntN(3) == 0
	w.OneEnd = w.Client != w.Server && r.IntN(3) == 0
	if w.Later = time.Duration(r.IntN(4)) * 2 * time.Second; w.Fault == "resource-pressure" {
		w.Later = 0 // buffers that are full stop their senders, and the sign ends
	}
	w.Options.IPv6 = r.IntN(2) == 0
	w.Options.Tight = r.IntN(3) == 0
	if bounds, ok := sizes[w.Fault]; ok {
		w.Options.Size = bounds[0] + r.IntN(bounds[1]-bounds[0]+1)
	}
	switch w.Fault {
	case "client-closes-first", "connection-churn":
		// About what the connections of the last minute were.
		w.Options.Rate = float64(w.Options.Size) / 60 * (0.7 + 0.6*r.Float64())
	case "port-exhaustion", "time-wait-overflow":
		w.Options.Rate = 10 + 90*r.Float64()
	}
}

// ports are the source ports of a host that others than the fault may count on.
func (w *World) ports(host int) int {
	if host != w.Client {
		return defaultPorts
	}
	switch {
	case w.Fault == "port-exhaustion":
		return w.Options.Size
	case w.Fault == "tw-reuse":
		return 2 * w.Options.Size
	case w.Fault == "bind-before-connect":
		return 2000 - w.Options.Size
	case w.Fault == "syn-on-time-wait":
		return 256
	case w.Fault == "client-closes-first" && w.Options.Tight:
		return tightFactor * w.Options.Size
	}
	return defaultPorts
}

// free tells whether the port of the fault's service is free on a host.
func (w *World) free(host int) bool {
	return host != w.Client && host != w.Server && !slices.ContainsFunc(w.Bystanders, func(b Bystander) bool { return b.SamePort && b.To == host })
}

// crowded tells whether the fault limits the time-wait sockets of a host, so that no
// churn there is healthy.
func (w *World) crowded(host int) bool {
	return host == w.Server && (w.Fault == "time-wait-overflow" || w.Fault == "connection-churn" && w.Options.Tight)
}

// isInformation tells whether the fault is true and harms nothing.
func (w *World) isInformation() bool {
	return (w.Fault == "client-closes-first" || w.Fault == "connection-churn") && !w.Options.Tight
}

// gone tells whether a host vanishes, so that nobody can be healthy with it.
func (w *World) gone(host int) bool { return w.Fault == "orphan-pileup" && host == w.Server }

// sharable are the faults to whose service another client may be healthy.
var sharable = []diagnose.Slug{
	"bind-before-connect", "client-closes-first", "close-wait-leak", "fin-timeout", "nat-port-exhaustion", "port-exhaustion", "tw-reuse",
}

func (w *World) drawBystander(r *rand.Rand) (Bystander, bool) {
	kinds := []BystanderKind{Idle, Pool, Pool, ClientChurn, ServiceChurn, BurstOfChurn, Crawler, Loopback, Reuser, Relay, Stragglers, Accidents}
	if slices.Contains(sharable, w.Fault) {
		kinds = append(kinds, Sharer, Sharer, Sharer)
	}
	b := Bystander{
		Kind: kinds[r.IntN(len(kinds))], From: r.IntN(w.Hosts), To: r.IntN(w.Hosts), IPv6: r.IntN(2) == 0,
		Addresses: 1 + r.IntN(2), Wildcard: r.IntN(3) == 0, SamePort: r.IntN(3) == 0, Connections: 5 + r.IntN(800), Rate: 1 + 14*r.Float64(),
	}
	b.SamePort = b.SamePort && w.free(b.To) && b.Kind != Crawler && b.Kind != Relay
	fast := 20 + 180*r.Float64()
	if b.Kind == Sharer {
		b.To, b.IPv6, b.Addresses, b.Wildcard, b.SamePort = w.Server, w.Options.IPv6, 1, false, false
	}
	if w.gone(b.From) || w.gone(b.To) || b.Kind == Sharer && b.From == w.Client && w.Fault == "port-exhaustion" {
		return b, false // nobody is there, or no port is left
	}
	switch b.Kind {
	case ClientChurn, ServiceChurn, BurstOfChurn, Crawler, Loopback, Reuser:
		if w.crowded(b.From) || w.crowded(b.To) {
			return b, false
		}
	}
	// A fifth of the ports stays open at most, and a fifth comes to be in TIME_WAIT.
	most := w.ports(b.From) / 5
	if b.Kind == Sharer && b.From == w.Client {
		most /= 5 // they count against the same ports as the fault
	}
	switch b.Kind {
	case ClientChurn, ServiceChurn:
		b.Connections = 0
	case Crawler:
		b.Connections, b.Rate = 0, fast
	case Loopback, Reuser:
		// Where the fault is only worth knowing, such churn is worth knowing as much.
		if b.From == w.Client && w.ports(b.From) < defaultPorts || w.isInformation() {
			return b, false
		}
		b.Connections, b.Addresses, b.Rate = 0, 1, fast
		if b.Kind == Loopback {
			b.To = b.From
			b.SamePort = b.SamePort && w.free(b.To)
		} else if b.From == w.Client {
			return b, false // its setting would cure some faults
		}
		return b, true
	case BurstOfChurn:
		b.Rate = min(b.Rate, 6)
	case Stragglers:
		b.Connections, b.Rate = min(b.Connections, 80), 0
	case Accidents:
		b.Connections, b.Rate = 0, 1+r.Float64()
		if slices.ContainsFunc(w.Bystanders, func(o Bystander) bool { return o.Kind == Accidents }) {
			return b, false // two of them may be five resets a second
		}
	default:
		b.Rate = 0
	}
	b.Connections, b.Rate = min(b.Connections, most), min(b.Rate, float64(most)/60)
	return b, b.Connections > 0 || b.Rate >= 0.5
}

// scenario is what the fault is built by.
func (w World) scenario() (Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Slug == w.Fault {
			return s, true
		}
	}
	return Scenario{}, false
}

func host(i int) string { return fmt.Sprintf("host%d", i+1) }

func familyOf(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// String tells in one paragraph what was drawn.
func (w World) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d hosts on a switch. ", w.Hosts)
	if s, faulty := w.scenario(); faulty {
		fmt.Fprintf(&b, "%s over %s between a client on %s and a service on %s", w.Fault, familyOf(w.Options.IPv6), host(w.Client), host(w.Server))
		if w.SecondAddress {
			b.WriteString(", at its second address")
		}
		fmt.Fprintf(&b, ": %s", s.Title)
		if w.Options.Size > 0 {
			fmt.Fprintf(&b, "; %s connections", proof.Number(float64(w.Options.Size)))
		}
		if w.Options.Rate > 0 {
			fmt.Fprintf(&b, ", then %.0f a second", w.Options.Rate)
		}
		if w.Options.Tight && (w.Fault == "client-closes-first" || w.Fault == "connection-churn") {
			b.WriteString(", with a tight limit")
		}
		if w.OneEnd {
			b.WriteString(", whose other end is not read")
		}
		if w.Later > 0 {
			fmt.Fprintf(&b, ", looked at %s later", w.Later)
		}
		b.WriteString(". ")
	} else {
		b.WriteString("Nothing is wrong. ")
	}
	if len(w.Bystanders) == 0 {
		b.WriteString("Nothing else goes on.")
		return b.String()
	}
	b.WriteString("Healthy beside it: ")
	for i, by := range w.Bystanders {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(by.String())
	}
	b.WriteString(".")
	return b.String()
}

func (b Bystander) String() string {
	way := fmt.Sprintf("from %s to %s over %s", host(b.From), host(b.To), familyOf(b.IPv6))
	if b.Addresses > 1 {
		way += ", two addresses each"
	}
	if b.Wildcard {
		way += ", to a wildcard listener"
	}
	if b.SamePort {
		way += fmt.Sprintf(", on port %d too", servicePort)
	}
	switch b.Kind {
	case Idle:
		return fmt.Sprintf("%d idle connections %s", b.Connections, way)
	case Pool:
		return fmt.Sprintf("a pool of %d connections %s", b.Connections, way)
	case ClientChurn:
		return fmt.Sprintf("%.1f connections a second that the client closes, %s", b.Rate, way)
	case ServiceChurn:
		return fmt.Sprintf("%.1f connections a second that the service closes, %s", b.Rate, way)
	case BurstOfChurn:
		return fmt.Sprintf("%d connections a while ago and %.1f a second that the client closes, %s", b.Connections, b.Rate, way)
	case Crawler:
		return fmt.Sprintf("a crawler of %d services with %.1f connections a second %s", crawledPorts, b.Rate, way)
	case Loopback:
		return fmt.Sprintf("%.0f connections a second on the loopback interface of %s", b.Rate, host(b.From))
	case Reuser:
		return fmt.Sprintf("%.0f connections a second that the client closes, with tcp_tw_reuse=1, %s", b.Rate, way)
	case Relay:
		return fmt.Sprintf("a relay on %s that %d clients on %s are connected to, and that is connected to %s over %s", host(b.From), b.Connections, host(b.To), host(b.To), familyOf(b.IPv6))
	case Stragglers:
		return fmt.Sprintf("%d connections that the client has closed and the service has not yet, %s", b.Connections, way)
	case Accidents:
		return fmt.Sprintf("%.1f connections a second that the service resets, %s", b.Rate, way)
	case Sharer:
		return fmt.Sprintf("a pool of %d connections from %s to the same service", b.Connections, host(b.From))
	}
	return string(b.Kind)
}
