package collect

import (
	"context"
	"errors"
	"slices"
	"time"

	"linger/internal/kernel/timewait"
	"linger/internal/setting"
	"linger/internal/snapshot"
	"linger/internal/snapshot/group"
	"linger/internal/tcp"
)

const (
	// takeoverShare is from which part of the range in TIME_WAIT on, in percent, a
	// connector's sockets are asked one by one: below it no rule counts their ports.
	takeoverShare = 30
	// takeoverBound is from how many ports of the parity that bind() prefers on they
	// are asked too, when these are a quarter of a connector's.
	takeoverBound = 50
)

// lookAtTimeWait asks which TIME_WAIT sockets connect() may take over, in the
// namespaces where that matters: it takes a second walk over the kernel's table, and
// programs that the kernel may not allow.
func (r *reading) lookAtTimeWait(ctx context.Context) {
	for _, ns := range r.namespaces {
		ports, known := ns.facts.Settings.PortRange()
		if !known || !slices.ContainsFunc(ns.sorted.Groups, func(g *group.Group) bool { return wantsTakeover(g, ports) }) || ctx.Err() != nil {
			continue
		}
		iterator, err := r.iterator.load()
		if err != nil {
			r.gap("", "which TIME_WAIT sockets connect() may take over, one by one", needsOf(err), err)
			return
		}
		if err := ns.readTakeover(ctx, iterator, ports); err != nil && ctx.Err() == nil {
			r.gap(ns.label(), "which TIME_WAIT sockets connect() may take over, one by one", "a BPF iterator over TCP sockets", err)
		}
	}
}

func needsOf(err error) string {
	if errors.Is(err, timewait.ErrForbidden) {
		return needsRights("CAP_BPF and CAP_PERFMON")
	}
	return "kernel 5.9 with BPF and BTF (CONFIG_DEBUG_INFO_BTF)"
}

func wantsTakeover(g *group.Group, ports tcp.PortRange) bool {
	timeWait := int(g.InRange[tcp.TimeWait])
	if g.Role != tcp.Connector || timeWait == 0 {
		return false
	}
	return 100*timeWait >= takeoverShare*ports.Size() ||
		g.OtherParity >= takeoverBound && 4*int(g.OtherParity) >= tcp.StatesOf(g.InRange).Total()
}

// readTakeover counts the TIME_WAIT sockets of the namespace's connectors by what
// connect() makes of them.
func (ns *namespace) readTakeover(ctx context.Context, iterator *timewait.Iterator, ports tcp.PortRange) error {
	delay := defaultReuseDelay
	if ms, known := ns.facts.Settings.Int(setting.TWReuseDelay); known {
		delay = time.Duration(ms) * time.Millisecond
	}
	taken, _ := ns.facts.Settings.ReservedPorts()
	for _, l := range ns.facts.Listeners {
		taken = taken.Union(tcp.PortSetOf(l.Local.Port))
	}
	counted := map[*group.Group]*snapshot.Takeover{}
	var bound [1 << 16]bool
	err := ns.handle.Do(func() error {
		return iterator.Each(ctx, func(s *timewait.Socket) {
			if !ports.Contains(s.LocalPort) {
				return
			}
			bound[s.LocalPort] = bound[s.LocalPort] || s.Bound
			g := ns.sorted.Connector(group.Key{Local: tcp.Addr(s.Local), Remote: tcp.Addr(s.Remote), Port: s.RemotePort})
			if g == nil || g.Role != tcp.Connector {
				return
			}
			t := counted[g]
			if t == nil {
				t = new(snapshot.Takeover)
				counted[g] = t
			}
			countTakeover(t, s, delay)
		})
	})
	if err != nil {
		return err
	}
	ns.takeovers = counted
	n := 0
	for port, is := range bound {
		if is && !taken.Contains(uint16(port)) {
			n++
		}
	}
	ns.facts.BoundTimeWait = &n
	return nil
}

// defaultReuseDelay is that of kernels without net.ipv4.tcp_tw_reuse_delay, and its
// default.
const defaultReuseDelay = time.Second

func countTakeover(t *snapshot.Takeover, s *timewait.Socket, delay time.Duration) {
	if s.Bound || !s.Timestamps {
		if s.Bound {
			t.Bound++
		} else {
			t.NoTimestamps++
		}
		if s.AgeKnown {
			if t.Kept == nil {
				t.Kept = new(snapshot.CloseHistory)
			}
			t.Kept.PerSecond[min(int(s.Age/time.Second), snapshot.HistorySeconds-1)]++
		}
		return
	}
	if s.Age <= delay {
		t.Young++
	} else {
		t.Ripe++
	}
	if s.Age > defaultReuseDelay {
		t.RipeByDefault++
	}
}
