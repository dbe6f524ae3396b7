package sockdiag

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"testing"

	"linger/internal/kernel/netns/netnstest"
	"linger/internal/tcp"
)

// crossed makes a namespace with connections of both families, and calls fn in it.
// Each has an end that was closed first, in TIME_WAIT, and some stay established.
func crossed(t *testing.T, fn func(servicePort uint16)) {
	t.Helper()
	h := netnstest.New(t)
	netnstest.KeepTimeWait(t, h)
	err := h.Do(func() error {
		first, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer first.Close()
		port := addrPort(first.Addr()).Port()
		listeners := []net.Listener{first}
		for _, at := range []struct{ network, address string }{
			{"tcp6", fmt.Sprintf("[::1]:%d", port)},
			{"tcp4", "127.0.0.2:0"},
			{"tcp", ":0"}, // dual-stack: its IPv4 connections are IPv4-mapped
		} {
			l, err := net.Listen(at.network, at.address)
			if err != nil {
				return err
			}
			defer l.Close()
			listeners = append(listeners, l)
		}
		for i, l := range listeners {
			for n := range 3 + i {
				to := l.Addr().String()
				if i == 3 {
					to = fmt.Sprintf("127.0.0.3:%d", addrPort(l.Addr()).Port())
				}
				client, err := net.Dial("tcp", to)
				if err != nil {
					return err
				}
				server, err := l.Accept()
				if err != nil {
					return err
				}
				if n > 0 {
					defer client.Close()
					defer server.Close()
					continue
				}
				local, remote := addrPort(client.LocalAddr()), addrPort(client.RemoteAddr())
				client.Close()
				server.Close()
				find(t, Request{States: []tcp.State{tcp.TimeWait}}, local, remote, tcp.TimeWait)
			}
		}
		fn(port)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func matches(t *testing.T, texts ...string) (all []tcp.Match) {
	t.Helper()
	for _, text := range texts {
		m, err := tcp.ParseMatch(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// The kernel runs the filter: it sends what ss counts with the same one, and not a
// socket more.
func TestFilterAgreesWithSS(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip(err)
	}
	crossed(t, func(port uint16) {
		service := fmt.Sprintf("127.0.0.1:%d", port)
		service6 := fmt.Sprintf("[::1]:%d", port)
		any := fmt.Sprintf("*:%d", port)
		all := filtered(t, Request{})
		for _, test := range []struct {
			name    string
			request Request
			ss      []string
		}{
			{"no filter", Request{}, nil},
			{"a state", Request{States: []tcp.State{tcp.TimeWait}}, []string{"state", "time-wait"}},
			{"two states", Request{States: []tcp.State{tcp.TimeWait, tcp.Listen}}, []string{"state", "time-wait", "state", "listening"}},
			{"a source address", Request{Filter: Filter{Local: matches(t, "127.0.0.1")}}, []string{"src 127.0.0.1"}},
			{"an IPv6 address", Request{Filter: Filter{Remote: matches(t, "::1")}}, []string{"dst [::1]"}},
			{"a prefix, over sockets of either family", Request{Filter: Filter{Remote: matches(t, "127.0.0.0/30")}}, []string{"dst 127.0.0.0/30"}},
			{"an uneven prefix", Request{Filter: Filter{Local: matches(t, "127.0.0.2/31")}}, []string{"src 127.0.0.2/31"}},
			{"an IPv6 prefix", Request{Filter: Filter{Local: matches(t, "::1/127")}}, []string{"src [::/127]"}},
			{"an address and port", Request{Filter: Filter{Remote: matches(t, service)}}, []string{"dst " + service}},
			{"an IPv6 address and port", Request{Filter: Filter{Local: matches(t, service6)}}, []string{"src " + service6}},
			{"a port of either family", Request{Filter: Filter{Remote: matches(t, any)}}, []string{fmt.Sprintf("dport = :%d", port)}},
			{
				"a port at either end", Request{Filter: Filter{Ports: []uint16{port}}},
				[]string{fmt.Sprintf("sport = :%d or dport = :%d", port, port)},
			},
			{"one of two", Request{Filter: Filter{Remote: matches(t, "127.0.0.2", service6)}}, []string{"dst 127.0.0.2 or dst " + service6}},
			{"both ends, a port and a state", Request{
				States: []tcp.State{tcp.Established},
				Filter: Filter{Local: matches(t, "127.0.0.0/8", "::1"), Remote: matches(t, service, service6), Ports: []uint16{port, 1}},
			}, []string{"state", "established", fmt.Sprintf("( src 127.0.0.0/8 or src [::1] ) and ( dst %s or dst %s )", service, service6)}},
			{"nothing", Request{Filter: Filter{Local: matches(t, "192.0.2.0/24")}}, []string{"src 192.0.2.0/24"}},
		} {
			got := filtered(t, test.request)
			// BOUND_INACTIVE is asked for by a full dump of ours and not by ss; there is none here.
			out, err := exec.Command("ss", append([]string{"-Htan"}, test.ss...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("ss %v: %v: %s", test.ss, err, out)
			}
			if want := bytes.Count(out, []byte("\n")); got.chosen != want {
				t.Errorf("%s: %d sockets, ss %v shows %d:\n%s", test.name, got.chosen, test.ss, want, out)
			}
			if got.sent != got.chosen {
				t.Errorf("%s: the kernel sent %d sockets for %d", test.name, got.sent, got.chosen)
			}
			if test.name != "no filter" && got.sent >= all.sent {
				t.Errorf("%s: the kernel sent all %d sockets", test.name, got.sent)
			}
		}
	})
}

// counted is how many sockets the kernel sent, and how many of them the filter chooses.
type counted struct{ sent, chosen int }

func filtered(t *testing.T, r Request) (n counted) {
	t.Helper()
	conn, err := Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Dump(context.Background(), r, func(s *tcp.Socket) {
		n.sent++
		if r.Filter.Chooses(s) {
			n.chosen++
		}
	})
	if err != nil {
		t.Fatalf("%+v: %v", r.Filter, err)
	}
	return n
}

// A filter longer than a jump of the kernel reaches is not given to it.
func TestFilterTooLongForTheKernel(t *testing.T) {
	var f Filter
	for port := range uint16(4000) {
		f.Ports = append(f.Ports, port+1)
	}
	if program := f.encode(); program != nil {
		t.Errorf("a program of %d bytes", len(program))
	}
	f.Ports = f.Ports[:500]
	if len(f.encode()) == 0 {
		t.Error("no program for 500 ports")
	}
	filtered(t, Request{Filter: f}) // the kernel checks all of it
}

// Whatever filter can be written, each way through the program ends behind it, or four
// bytes further, as inet_diag_bc_audit of the kernel wants it.
func FuzzFilter(f *testing.F) {
	f.Add("10.0.0.0/8", "[::1]:443", uint16(80), uint16(0))
	f.Add("*", "*:1", uint16(0), uint16(9))
	f.Fuzz(func(t *testing.T, local, remote string, port, other uint16) {
		var filter Filter
		for _, text := range []string{local, remote} {
			if m, err := tcp.ParseMatch(text); err == nil {
				filter.Local, filter.Remote = append(filter.Local, m), append(filter.Remote, m)
			}
		}
		for _, p := range []uint16{port, other} {
			if p != 0 {
				filter.Ports = append(filter.Ports, p)
			}
		}
		audit(t, filter.encode())
	})
}

func audit(t *testing.T, program []byte) {
	starts := map[int]bool{}
	for at := 0; at < len(program); at += int(program[at+1]) {
		if program[at+1] < opSize {
			t.Fatalf("operation at %d of %d bytes", at, program[at+1])
		}
		starts[at] = true
	}
	end := len(program)
	starts[end], starts[end+opSize] = true, true
	for at := 0; at < end; at += int(program[at+1]) {
		no := int(program[at+2]) | int(program[at+3])<<8
		if !starts[at+no] || no < opSize {
			t.Errorf("operation at %d goes on %d further, in a program of %d: %x", at, no, end, program)
		}
	}
}
