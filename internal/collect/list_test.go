package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"linger/internal/kernel/netns/netnstest"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// served makes a namespace with a listener and a connection to it, and returns a path
// to it and the addresses.
func served(t *testing.T, network, address string) (path string, client, service tcp.Endpoint) {
	t.Helper()
	h := netnstest.New(t)
	err := h.Do(func() error {
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		s, err := l.Accept()
		if err != nil {
			return err
		}
		t.Cleanup(func() { s.Close() })
		at := func(a net.Addr) tcp.Endpoint {
			ap := a.(*net.TCPAddr).AddrPort()
			return tcp.Endpoint{Addr: ap.Addr().Unmap(), Port: ap.Port()}
		}
		client, service = at(c.LocalAddr()), at(l.Addr())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", h.FD()), client, service
}

func listed(t *testing.T, o ListOptions) (all []snapshot.Socket) {
	t.Helper()
	_, err := List(context.Background(), o, func(s *snapshot.Socket) error {
		all = append(all, *s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestListTellsEachSocket(t *testing.T) {
	for _, at := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		path, client, service := served(t, at.network, at.address)
		netns := []string{path}
		all := listed(t, ListOptions{Netns: netns})
		if len(all) != 3 {
			t.Errorf("%s: %d sockets, want a listener and the two ends of a connection: %+v", at.network, len(all), all)
		}
		for _, s := range all {
			if s.Cookie == 0 || s.Owner == nil || s.Owner.PID != os.Getpid() {
				t.Errorf("%s: no cookie, or not this process's: %+v", at.network, s)
			}
		}
		from := listed(t, ListOptions{Netns: netns, Roles: []tcp.Role{tcp.Connector}})
		if len(from) != 1 || from[0].Local != client || from[0].Remote != service || from[0].State != "ESTABLISHED" {
			t.Errorf("%s: the connector is %+v, want %v → %v", at.network, from, client, service)
		}
		exactly := tcp.Match{Port: client.Port}
		if got := listed(t, ListOptions{Netns: netns, Remote: []tcp.Match{exactly}}); len(got) != 1 || got[0].Role != tcp.Acceptor {
			t.Errorf("%s: with remote %v: %+v", at.network, exactly, got)
		}
		if got := listed(t, ListOptions{Netns: netns, States: []tcp.State{tcp.Listen}}); len(got) != 1 || got[0].Role != "" {
			t.Errorf("%s: listeners: %+v", at.network, got)
		}
		if got := listed(t, ListOptions{Netns: netns, Ports: []uint16{1}}); len(got) != 0 {
			t.Errorf("%s: on port 1: %+v", at.network, got)
		}
	}
}

func TestListStopsWhereItsReaderDoes(t *testing.T) {
	path, _, _ := served(t, "tcp4", "127.0.0.1:0")
	enough := errors.New("enough")
	seen := 0
	_, err := List(context.Background(), ListOptions{Netns: []string{path}}, func(*snapshot.Socket) error {
		seen++
		return enough
	})
	if !errors.Is(err, enough) || seen != 1 {
		t.Errorf("%d sockets, then %v", seen, err)
	}
}

func TestListThatIsInterrupted(t *testing.T) {
	path, _, _ := served(t, "tcp4", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	gaps, err := List(ctx, ListOptions{Netns: []string{path}}, func(*snapshot.Socket) error {
		cancel()
		return nil
	})
	if err != nil || len(gaps) == 0 || gaps[len(gaps)-1].What != "all of it" {
		t.Errorf("%v, %+v", err, gaps)
	}
}
