package score

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/proof"
)

// World is what a seed draws: hosts on a switch, one problem between two of them or
// none, and beside it what is healthy. The same seed draws the same world.
type World struct {
	seed  uint64
	hosts int

	// fault is empty where nothing is wrong.
	fault diagnose.Slug
	// client and server are the hosts of the fault; they may be one.
	client, server int
	options        cases.Options
	// secondAddress has the service of the fault on a second address of its host.
	secondAddress bool
	// oneEnd leaves the namespace of the fault's other end unread, as if it were on another
	// machine.
	oneEnd bool
	// later is how long after the fault can be seen it is looked for.
	later time.Duration

	bystanders []bystander
}

// bystander is a healthy load beside the fault.
type bystander struct {
	kind bystanderKind
	// from and to are the hosts of its client and service; they may be one.
	from, to int
	ipv6     bool
	// connections are those that stay open, or came before the look.
	connections int
	// rate is how many connections a second it opens and closes.
	rate float64
	// addresses is how many addresses of either host it uses, one or two.
	addresses int
	// wildcard: its service listens on all addresses of both families, by one socket.
	wildcard bool
	// samePort: its service has the port of the fault's, on another host.
	samePort bool
}

// bystanderKind is what a bystander does.
type bystanderKind string

// Idle connections; a pool that is used; churn in which the client or the service
// closes first, some of it a while ago (burstOfChurn); a crawler that closes few
// connections to each of many services; loopback churn, and that of a reuser, whose
// ports are taken over in time; a relay that serves and connects, as a proxy does;
// stragglers, whose service has not closed some connections yet; accidents, which end
// by a reset; a sharer, which has a pool to the very service of the fault.
const (
	idle         bystanderKind = "idle"
	pool         bystanderKind = "pool"
	clientChurn  bystanderKind = "client-churn"
	serviceChurn bystanderKind = "service-churn"
	burstOfChurn bystanderKind = "burst"
	crawler      bystanderKind = "crawler"
	loopback     bystanderKind = "loopback"
	reuser       bystanderKind = "reuser"
	relay        bystanderKind = "relay"
	stragglers   bystanderKind = "stragglers"
	accidents    bystanderKind = "accidents"
	sharer       bystanderKind = "sharer"
)

const (
	mostHosts      = 5
	mostBystanders = 5
	crawledPorts   = 100
)

// Draw draws the world of a seed.
func Draw(seed uint64) World {
	r := rand.New(rand.NewPCG(seed, 0))
	w := World{seed: seed, hosts: 2 + r.IntN(mostHosts-1)}
	w.drawFault(r)
	for range r.IntN(mostBystanders + 1) {
		if b, ok := w.drawBystander(r); ok {
			w.bystanders = append(w.bystanders, b)
		}
	}
	return w
}

func (w *World) drawFault(r *rand.Rand) {
	var possible []diagnose.Slug
	for _, s := range scenarios() {
		if s.Cannot == "" {
			possible = append(possible, s.Slug)
		}
	}
	if r.IntN(6) > 0 {
		w.fault = possible[r.IntN(len(possible))]
	}
	order := r.Perm(w.hosts)
	w.client, w.server = order[0], order[1]
	draw := w.scenario().Draw
	if draw.OneHost && r.IntN(4) == 0 {
		w.server = w.client
	}
	w.secondAddress = w.client != w.server && r.IntN(3) == 0
	w.oneEnd = w.client != w.server && r.IntN(3) == 0
	if w.later = time.Duration(r.IntN(4)) * 2 * time.Second; draw.Fleeting {
		w.later = 0
	}
	w.options.IPv6 = r.IntN(2) == 0
	w.options.Tight = r.IntN(3) == 0
	if least, most := draw.Sizes[0], draw.Sizes[1]; most > 0 {
		w.options.Size = least + r.IntN(most-least+1)
	}
	if draw.Rate != nil {
		w.options.Rate = draw.Rate(r, w.options.Size)
	}
}

// ports are the source ports of a host that others than the fault may count on.
func (w *World) ports(host int) int {
	ports := w.scenario().Draw.Ports
	if host != w.client || ports == nil {
		return cases.DefaultPorts
	}
	return ports(w.options)
}

// free tells whether the port of the fault's service is free on a host.
func (w *World) free(host int) bool {
	return host != w.client && host != w.server && !slices.ContainsFunc(w.bystanders,
		func(b bystander) bool { return b.samePort && b.to == host })
}

// crowded tells whether the fault limits the time-wait sockets of a host, so that no
// churn there is healthy.
func (w *World) crowded(host int) bool {
	crowds := w.scenario().Draw.Crowds
	return host == w.server && crowds != nil && crowds(w.options)
}

// isInformation tells whether the fault is true and harms nothing.
func (w *World) isInformation() bool {
	return w.scenario().Draw.Tightens && !w.options.Tight
}

// gone tells whether a host vanishes, so that nobody can be healthy with it.
func (w *World) gone(host int) bool { return w.scenario().Draw.Gone && host == w.server }

func (w *World) drawBystander(r *rand.Rand) (bystander, bool) {
	kinds := []bystanderKind{idle, pool, pool, clientChurn, serviceChurn, burstOfChurn, crawler, loopback, reuser, relay, stragglers,
		accidents}
	draw := w.scenario().Draw
	if draw.Sharable {
		kinds = append(kinds, sharer, sharer, sharer)
	}
	b := bystander{
		kind: kinds[r.IntN(len(kinds))], from: r.IntN(w.hosts), to: r.IntN(w.hosts), ipv6: r.IntN(2) == 0,
		addresses: 1 + r.IntN(2), wildcard: r.IntN(3) == 0, samePort: r.IntN(3) == 0, connections: 5 + r.IntN(800),
		rate: 1 + 14*r.Float64(),
	}
	b.samePort = b.samePort && w.free(b.to) && b.kind != crawler && b.kind != relay
	fast := 20 + 180*r.Float64()
	if b.kind == sharer {
		b.to, b.ipv6, b.addresses, b.wildcard, b.samePort = w.server, w.options.IPv6, 1, false, false
	}
	if w.gone(b.from) || w.gone(b.to) || b.kind == sharer && b.from == w.client && draw.Exhausts {
		return b, false // nobody is there, or no port is left
	}
	switch b.kind {
	case clientChurn, serviceChurn, burstOfChurn, crawler, loopback, reuser:
		if w.crowded(b.from) || w.crowded(b.to) {
			return b, false
		}
	}
	// A fifth of the ports stays open at most, and a fifth comes to be in TIME_WAIT.
	most := w.ports(b.from) / 5
	if b.kind == sharer && b.from == w.client {
		most /= 5 // they count against the same ports as the fault
	}
	switch b.kind {
	case clientChurn, serviceChurn:
		b.connections = 0
	case crawler:
		b.connections, b.rate = 0, fast
	case loopback, reuser:
		// Where the fault is only worth knowing, such churn is worth knowing as much.
		if b.from == w.client && w.ports(b.from) < cases.DefaultPorts || w.isInformation() {
			return b, false
		}
		b.connections, b.addresses, b.rate = 0, 1, fast
		if b.kind == loopback {
			b.to = b.from
			b.samePort = b.samePort && w.free(b.to)
		} else if b.from == w.client {
			return b, false // its setting would cure some faults
		}
		return b, true
	case burstOfChurn:
		b.rate = min(b.rate, 6)
	case stragglers:
		b.connections, b.rate = min(b.connections, 80), 0
	case accidents:
		b.connections, b.rate = 0, 1+r.Float64()
		if slices.ContainsFunc(w.bystanders, func(o bystander) bool { return o.kind == accidents }) {
			return b, false // two of them may be five resets a second
		}
	default:
		b.rate = 0
	}
	b.connections, b.rate = min(b.connections, most), min(b.rate, float64(most)/60)
	return b, b.connections > 0 || b.rate >= 0.5
}

// scenario is what the fault is built by, without a slug where nothing is wrong.
func (w World) scenario() cases.Scenario {
	for _, s := range scenarios() {
		if s.Slug == w.fault {
			return s
		}
	}
	return cases.Scenario{}
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
	fmt.Fprintf(&b, "%d hosts on a switch. ", w.hosts)
	if s := w.scenario(); s.Slug != "" {
		fmt.Fprintf(&b, "%s over %s between a client on %s and a service on %s", w.fault, familyOf(w.options.IPv6), host(w.client),
			host(w.server))
		if w.secondAddress {
			b.WriteString(", at its second address")
		}
		fmt.Fprintf(&b, ": %s", s.Title)
		if w.options.Size > 0 {
			fmt.Fprintf(&b, "; %s connections", proof.Number(float64(w.options.Size)))
		}
		if w.options.Rate > 0 {
			fmt.Fprintf(&b, ", then %.0f a second", w.options.Rate)
		}
		if w.options.Tight && s.Draw.Tightens {
			b.WriteString(", with a tight limit")
		}
		if w.oneEnd {
			b.WriteString(", whose other end is not read")
		}
		if w.later > 0 {
			fmt.Fprintf(&b, ", looked at %s later", w.later)
		}
		b.WriteString(". ")
	} else {
		b.WriteString("Nothing is wrong. ")
	}
	if len(w.bystanders) == 0 {
		b.WriteString("Nothing else goes on.")
		return b.String()
	}
	b.WriteString("Healthy beside it: ")
	for i, by := range w.bystanders {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(by.String())
	}
	b.WriteString(".")
	return b.String()
}

func (b bystander) String() string {
	way := fmt.Sprintf("from %s to %s over %s", host(b.from), host(b.to), familyOf(b.ipv6))
	if b.addresses > 1 {
		way += ", two addresses each"
	}
	if b.wildcard {
		way += ", to a wildcard listener"
	}
	if b.samePort {
		way += fmt.Sprintf(", on port %d too", stage.ServicePort)
	}
	switch b.kind {
	case idle:
		return fmt.Sprintf("%d idle connections %s", b.connections, way)
	case pool:
		return fmt.Sprintf("a pool of %d connections %s", b.connections, way)
	case clientChurn:
		return fmt.Sprintf("%.1f connections a second that the client closes, %s", b.rate, way)
	case serviceChurn:
		return fmt.Sprintf("%.1f connections a second that the service closes, %s", b.rate, way)
	case burstOfChurn:
		return fmt.Sprintf("%d connections a while ago and %.1f a second that the client closes, %s", b.connections, b.rate, way)
	case crawler:
		return fmt.Sprintf("a crawler of %d services with %.1f connections a second %s", crawledPorts, b.rate, way)
	case loopback:
		return fmt.Sprintf("%.0f connections a second on the loopback interface of %s", b.rate, host(b.from))
	case reuser:
		return fmt.Sprintf("%.0f connections a second that the client closes, with tcp_tw_reuse=1, %s", b.rate, way)
	case relay:
		return fmt.Sprintf("a relay on %s that %d clients on %s are connected to, and that is connected to %s over %s",
			host(b.from), b.connections, host(b.to), host(b.to), familyOf(b.ipv6))
	case stragglers:
		return fmt.Sprintf("%d connections that the client has closed and the service has not yet, %s", b.connections, way)
	case accidents:
		return fmt.Sprintf("%.1f connections a second that the service resets, %s", b.rate, way)
	case sharer:
		return fmt.Sprintf("a pool of %d connections from %s to the same service", b.connections, host(b.from))
	}
	return string(b.kind)
}
