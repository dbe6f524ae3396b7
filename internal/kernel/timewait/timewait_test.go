package timewait_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
	"linger/internal/kernel/netns/netnstest"
	"linger/internal/kernel/timewait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func plain(a timewait.Addr) netip.Addr { return netip.AddrFrom16(a).Unmap() }

func load(t testing.TB) *timewait.Iterator {
	t.Helper()
	it, err := timewait.Load()
	if errors.Is(err, timewait.ErrForbidden) || errors.Is(err, timewait.ErrNoIterator) {
		t.Skipf("no BPF here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := it.Close(); err != nil {
			t.Error(err)
		}
	})
	return it
}

// place is a namespace with one source port and a service that waits for its clients
// to close.
type place struct {
	*netns.Handle
	service netip.AddrPort
}

func newPlace(t testing.TB, addr string) place {
	t.Helper()
	h := netnstest.New(t)
	p := place{h, netip.AddrPortFrom(netip.MustParseAddr(addr), 7000)}
	netnstest.Set(t, h, "net.ipv4.ip_local_port_range", "40000 40000")
	netnstest.Set(t, h, "net.ipv4.tcp_tw_reuse", "1")
	netnstest.KeepTimeWait(t, h)
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp", p.service.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return p
}

// connect opens and closes one connection, after bind() where the source is given.
func (p place) connect(bind bool) error {
	return p.Do(func() error {
		var d net.Dialer
		if bind {
			d.LocalAddr = &net.TCPAddr{IP: p.service.Addr().AsSlice()}
		}
		c, err := d.Dial("tcp", p.service.String())
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func (p place) sockets(t testing.TB, it *timewait.Iterator) (all []timewait.Socket) {
	t.Helper()
	err := p.Do(func() error {
		return it.Each(t.Context(), func(s *timewait.Socket) { all = append(all, *s) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// one waits for the TIME_WAIT socket to be there, and at least so old.
func (p place) one(t testing.TB, it *timewait.Iterator, age time.Duration) timewait.Socket {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all := p.sockets(t, it)
		if len(all) == 1 && all[0].Age >= age {
			return all[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("sockets %+v, want one that is %v old", all, age)
		}
	}
}

// What is read of a TIME_WAIT socket is what connect() then makes of it, when there is
// no other port to take.
func TestConnectAgrees(t *testing.T) {
	it := load(t)
	for _, test := range []struct {
		name              string
		bind              bool
		settings          map[string]string
		age               time.Duration
		bound, timestamps bool
		taken             bool
	}{
		{name: "made by connect", age: 1100 * time.Millisecond, timestamps: true, taken: true},
		{name: "bound", bind: true, age: 1100 * time.Millisecond, bound: true, timestamps: true},
		{name: "without time stamps", settings: map[string]string{"tcp_timestamps": "0"}, age: time.Second},
		{name: "too young", settings: map[string]string{"tcp_tw_reuse_delay": "60000"}, age: 1100 * time.Millisecond, timestamps: true},
		{
			name: "old enough for a short delay", settings: map[string]string{"tcp_tw_reuse_delay": "50"},
			age: 100 * time.Millisecond, timestamps: true, taken: true,
		},
	} {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			t.Run(test.name+"/"+addr, func(t *testing.T) {
				p := newPlace(t, addr)
				for key, value := range test.settings {
					netnstest.Set(t, p.Handle, "net.ipv4."+key, value)
				}
				if err := p.connect(test.bind); err != nil {
					t.Fatal(err)
				}
				s := p.one(t, it, test.age)
				if plain(s.Local) != p.service.Addr() || plain(s.Remote) != p.service.Addr() || s.LocalPort != 40000 || s.RemotePort != 7000 {
					t.Errorf("endpoints of %+v", s)
				}
				if s.Bound != test.bound || s.Timestamps != test.timestamps {
					t.Errorf("bound %v, time stamps %v; want %v, %v", s.Bound, s.Timestamps, test.bound, test.timestamps)
				}
				if !s.AgeKnown || s.Age > 30*time.Second {
					t.Errorf("age %v, known: %v", s.Age, s.AgeKnown)
				}
				err := p.connect(false)
				if test.taken && err != nil {
					t.Errorf("connect: %v, want it to take the port over", err)
				}
				if !test.taken && !errors.Is(err, unix.EADDRNOTAVAIL) {
					t.Errorf("connect: %v, want EADDRNOTAVAIL", err)
				}
			})
		}
	}
}

// Several goroutines read different namespaces with one program, and each sees its own.
func TestNamespacesAreApart(t *testing.T) {
	it := load(t)
	var places []place
	for i := range 8 {
		p := newPlace(t, []string{"127.0.0.1", "::1"}[i%2])
		if err := p.connect(false); err != nil {
			t.Fatal(err)
		}
		p.one(t, it, 0)
		places = append(places, p)
	}
	empty := newPlace(t, "127.0.0.1")
	var reading sync.WaitGroup
	for _, p := range places {
		for range 2 {
			reading.Go(func() {
				if all := p.sockets(t, it); len(all) != 1 || plain(all[0].Local) != p.service.Addr() {
					t.Errorf("sockets %+v, want the one of %v", all, p.service)
				}
			})
		}
	}
	reading.Wait()
	if all := empty.sockets(t, it); len(all) != 0 {
		t.Errorf("an empty namespace has %+v", all)
	}
}

// A record may lie across two answers of the kernel, which are filled to the brim. None is lost, and none ends early.
func TestManySockets(t *testing.T) {
	it := load(t)
	const many = 2500
	p := newPlace(t, "127.0.0.1")
	netnstest.Set(t, p.Handle, "net.ipv4.ip_local_port_range", "30000 39999")
	netnstest.Set(t, p.Handle, "net.ipv4.tcp_tw_reuse", "0") // no connection takes the port of an earlier one
	for range many {
		if err := p.connect(false); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ports := map[uint16]int{}
		for _, s := range p.sockets(t, it) {
			if plain(s.Local) != p.service.Addr() || s.RemotePort != 7000 || s.LocalPort < 30000 || s.LocalPort > 39999 {
				t.Fatalf("not a socket of the test: %+v", s)
			}
			ports[s.LocalPort]++
		}
		if len(ports) == many {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ports, want %d", len(ports), many)
		}
	}
}

func TestCancelled(t *testing.T) {
	it := load(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := it.Each(ctx, func(*timewait.Socket) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// Without rights the reason is told. The test gives them up on a thread of its own.
func TestWithoutRights(t *testing.T) {
	load(t)
	err := withoutCapabilities(timewaitLoad)
	if !errors.Is(err, timewait.ErrForbidden) {
		t.Errorf("error %v, want ErrForbidden", err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
}

func timewaitLoad() error {
	it, err := timewait.Load()
	if err == nil {
		it.Close()
	}
	return err
}

func withoutCapabilities(fn func() error) error {
	result := make(chan error)
	go func() {
		// Locked and never unlocked: the thread dies with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		result <- fn()
	}()
	return <-result
}
