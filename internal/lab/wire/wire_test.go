package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"linger/internal/kernel/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts are two namespaces and the wire between them.
type hosts struct {
	*Wire
	left, right *netns.Handle
	ipv6        bool
}

func join(t *testing.T, ipv6 bool, o Options) *hosts {
	t.Helper()
	h := &hosts{ipv6: ipv6}
	ends := [2]End{}
	for i, name := range []string{"left", "right"} {
		ns, err := netns.New()
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		ends[i] = End{Name: name, Netns: ns, Link: "wire0", Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.99.0.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd99::%d/64", i+1)),
		}}
	}
	h.left, h.right = ends[0].Netns, ends[1].Netns
	var err error
	if h.Wire, err = Join(ends[0], ends[1], o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

// patience is generous: other work may be going on.
const patience = 30 * time.Second

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connect is a connection from left to right.
func (h *hosts) connect(t *testing.T) (left, right *net.TCPConn) {
	t.Helper()
	address := "10.99.0.2:8080"
	if h.ipv6 {
		address = "[fd99::2]:8080"
	}
	var l *net.TCPListener
	err := h.right.Do(func() error {
		a, err := net.Listen("tcp", address)
		if err == nil {
			l = a.(*net.TCPListener)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(patience))
	err = h.left.Do(func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err == nil {
			left = c.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if right, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{left, right} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		c.SetNoDelay(true)
	}
	return left, right
}

func families(t *testing.T, f func(t *testing.T, ipv6 bool)) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[ipv6], func(t *testing.T) {
			t.Parallel()
			f(t, ipv6)
		})
	}
}

func say(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Fatalf("heard %q, want %q", got, text)
	}
}

// A rule takes just the segment that it names; TCP sends it again, and everything
// else passes once and in order.
func TestDropIsExact(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, ipv6 bool) {
		h := join(t, ipv6, Options{})
		left, right := h.connect(t)
		h.SetRules(Rule{Match: Match{From: Left, Payload: []byte("three"), Nth: 1}, Action: Drop})
		since := h.Now()
		for _, word := range []string{"one", "two", "three"} {
			say(t, left, word)
		}
		hear(t, right, "onetwothree")
		var arrived, dropped []string
		for _, p := range h.Passed(since) {
			if p.From == Left && len(p.Segment.Payload) > 0 {
				if p.Fate == Dropped {
					dropped = append(dropped, string(p.Segment.Payload))
				} else {
					arrived = append(arrived, string(p.Segment.Payload))
				}
			}
			if !p.Segment.intact() {
				t.Errorf("checksum of %+v", p.Segment)
			}
		}
		if len(dropped) != 1 || !strings.Contains(dropped[0], "three") {
			t.Errorf("dropped %q", dropped)
		}
		if got := strings.Join(arrived, ""); !strings.HasPrefix(got, "onetwo") || !strings.HasSuffix(got, "three") {
			t.Errorf("arrived %q", arrived)
		}
		again := Match{From: Left, Payload: []byte("three"), Sequence: Again}
		if h.Count(since, again) < 1 {
			t.Errorf("TCP did not send it again:\n%s", h.Ladder(0, Match{}))
		}
	})
}

// Delayed segments are overtaken, duplicates arrive twice, held ones when they are
// sent: the receiver's kernel says so by its acknowledgements.
func TestActions(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, ipv6 bool) {
		h := join(t, ipv6, Options{})
		left, right := h.connect(t)
		payload := func(text string) Match { return Match{From: Left, Payload: []byte(text), Nth: 1} }
		h.SetRules(
			Rule{Match: payload("late"), Action: Delay, Delay: 50 * time.Millisecond},
			Rule{Match: payload("twice"), Action: Duplicate},
			Rule{Match: payload("held"), Action: Hold},
		)
		since := h.Now()
		say(t, left, "late")
		if _, err := h.Await(patient(t), since, Match{From: Left, Payload: []byte("late")}); err != nil {
			t.Fatal(err)
		}
		say(t, left, "next")
		hear(t, right, "latenext")
		order := []Fate{}
		for _, p := range h.Passed(since) {
			if text := string(p.Segment.Payload); text == "late" || text == "next" {
				order = append(order, p.Fate)
			}
		}
		if order[0] != Delayed || order[1] != Arrived || order[2] != Arrived {
			t.Errorf("fates %v:\n%s", order, h.Ladder(since, Match{}))
		}

		since = h.Now()
		say(t, left, "twice")
		hear(t, right, "twice")
		if n := h.Count(since, Match{From: Left, Payload: []byte("twice")}); n != 2 {
			t.Errorf("duplicated %d times", n)
		}

		since = h.Now()
		say(t, left, "held")
		p, err := h.Await(patient(t), since, Match{From: Left, Payload: []byte("held")})
		if err != nil || p.Fate != Held {
			t.Fatalf("%v, %v", p.Fate, err)
		}
		hear(t, right, "held") // TCP sent it again
		mark := h.Now()
		if err := h.Send(Left, p.Segment.Packet(), "the held one"); err != nil {
			t.Fatal(err)
		}
		// A duplicate is acknowledged at once (RFC 9293, 3.10.7.4).
		if _, err := h.Await(patient(t), mark, Match{From: Right, Has: ACK, Empty: true}); err != nil {
			t.Errorf("%v:\n%s", err, h.Ladder(since, Match{}))
		}
	})
}

// A rule that matches the last ACK alone: what the receiver of it does is send its FIN
// again.
func TestRelationToFIN(t *testing.T) {
	t.Parallel()
	h := join(t, false, Options{})
	left, right := h.connect(t)
	h.SetRules(Rule{Match: Match{From: Left, Sequence: AcksFIN, Nth: 1}, Action: Drop})
	left.CloseWrite()
	hear(t, right, "")
	io.Copy(io.Discard, right)
	right.Close()
	fin := Match{From: Right, Has: FIN, Sequence: Again, Nth: 1}
	if _, err := h.Await(patient(t), 0, fin); err != nil {
		t.Errorf("%v:\n%s", err, h.Ladder(0, Match{}))
	}
}

// Sixteen megabytes each way at once: nothing is lost, nothing out of place, and no
// packet is larger than the MTU.
func TestBulkAndMTU(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, ipv6 bool) {
		const mtu, size = 1280, 16 << 20
		h := join(t, ipv6, Options{MTU: mtu})
		left, right := h.connect(t)
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		want := sha256.Sum256(data)
		done := make(chan error, 4)
		for _, c := range []*net.TCPConn{left, right} {
			go func() {
				_, err := c.Write(data)
				done <- errors.Join(err, c.CloseWrite())
			}()
			go func() {
				sum := sha256.New()
				n, err := io.Copy(sum, c)
				if err == nil && [32]byte(sum.Sum(nil)) != want {
					err = fmt.Errorf("%d bytes, not those that were sent", n)
				}
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n, err := h.overflowed(); n != 0 || err != nil {
			t.Errorf("%d packets lost, %v", n, err)
		}
		largest := 0
		for _, p := range h.Passed(0) {
			largest = max(largest, len(p.Segment.Packet()))
		}
		if largest != mtu {
			t.Errorf("the largest packet has %d bytes, want %d", largest, mtu)
		}
	})
}

// A program that does not read holds up its own peer: the wire keeps no more than a
// window, and others go on.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	h := join(t, false, Options{})
	stuck, _ := h.connect(t)
	left, right := h.connect(t)
	stuck.SetWriteDeadline(time.Now().Add(2 * time.Second))
	const much = 64 << 20
	n, err := stuck.Write(make([]byte, much))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == much {
		t.Errorf("wrote %d bytes to a peer that does not read: %v", n, err)
	}
	say(t, left, "and yet")
	hear(t, right, "and yet")
	if n, err := h.overflowed(); n != 0 || err != nil {
		t.Errorf("%d packets lost, %v", n, err)
	}
}

func TestPcapIsReadByTcpdump(t *testing.T) {
	t.Parallel()
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("needs tcpdump: apt-get install tcpdump")
	}
	families(t, func(t *testing.T, ipv6 bool) {
		file := filepath.Join(t.TempDir(), "wire.pcap")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := join(t, ipv6, Options{Pcap: f})
		left, right := h.connect(t)
		h.SetRules(Rule{Match: Match{Payload: []byte("lost"), Nth: 1}, Action: Drop})
		say(t, left, "hello")
		hear(t, right, "hello")
		say(t, left, "lost")
		hear(t, right, "lost")
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		// -vv has the checksums verified.
		text, err := exec.Command(tcpdump, "-nn", "-vv", "-r", file, "tcp or ip6 proto 6").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		arrived := 0
		for _, p := range h.Passed(0) {
			if p.Fate == Arrived {
				arrived++
			}
		}
		if n := strings.Count(string(text), "Flags ["); n != arrived || arrived < 5 {
			t.Errorf("tcpdump reads %d segments, %d arrived:\n%s", n, arrived, text)
		}
		if bytes.Contains(text, []byte("incorrect")) || !bytes.Contains(text, []byte("(correct)")) {
			t.Errorf("checksums:\n%s", text)
		}
	})
}

// Timers that run, segments that are held and connections that are open do not keep
// the wire from closing, and the devices are gone.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	h := join(t, false, Options{})
	left, _ := h.connect(t)
	h.SetRules(
		Rule{Match: Match{Payload: []byte("late")}, Action: Delay, Delay: time.Hour},
		Rule{Match: Match{Payload: []byte("held")}, Action: Hold},
	)
	say(t, left, "late")
	say(t, left, "held")
	if _, err := h.Await(patient(t), 0, Match{Payload: []byte("late")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, ns := range []*netns.Handle{h.left, h.right} {
		err := ns.Do(func() error {
			if _, err := net.InterfaceByName("wire0"); err == nil {
				return errors.New("the device is still there")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := h.Send(Left, build(Segment{
		Src: netip.MustParseAddrPort("10.99.0.1:1"), Dst: netip.MustParseAddrPort("10.99.0.2:2"), Flags: SYN,
	}), ""); !errors.Is(err, os.ErrClosed) {
		t.Errorf("sent on a closed wire: %v", err)
	}
}

// A full disk is told, at the latest by Close.
func TestPcapThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	ns, err := netns.New()
	if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	w, err := Join(End{Name: "left", Netns: ns, Link: "wire0"}, End{Name: "right", Netns: ns, Link: "wire1"},
		Options{Pcap: full})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "write pcap") {
		t.Errorf("close says %v", err)
	}
}
