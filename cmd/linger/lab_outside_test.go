package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"linger/internal/kernel/netns"
)

// outside is a namespace with the host's part: a link that leads out and takes all
// routes, behind which another namespace counts what comes.
func outside(t *testing.T) *netns.Handle {
	t.Helper()
	var both [2]*netns.Handle
	for i := range both {
		h, err := netns.New()
		if err != nil {
			t.Skip("only root can make a namespace: ", err)
		}
		t.Cleanup(func() { h.Close() })
		// Nothing but what is sent on purpose: the kernel looks for IPv6 neighbours by itself.
		err = h.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		both[i] = h
	}
	err := both[0].Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "out"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "out", PeerNamespace: netlink.NsFd(both[1].FD())})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range both {
		err := h.Do(func() error {
			link, err := netlink.LinkByName("out")
			if err != nil {
				return err
			}
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, byte(i+1)), Mask: net.CIDRMask(24, 32)}}
			_, everywhere, err := net.ParseCIDR("0.0.0.0/0")
			return errors.Join(err, netlink.LinkSetUp(link), netlink.AddrAdd(link, addr),
				netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere}))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return both[0]
}

// sent is how many packets have left by a link of the namespace, and by its loopback.
func sent(t *testing.T, h *netns.Handle) (packets uint64) {
	t.Helper()
	err := h.Do(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			packets += link.Attrs().Statistics.TxPackets
		}
		if len(links) != 2 {
			err = errors.Join(err, errors.New("the laboratory left a link in the namespace that it was started in"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

// No packet leaves the laboratory's namespaces: not by the links between two, by a
// switch, by a wire through a masquerade, nor by a real proxy. Where it was started all
// routes lead out, and nothing goes there.
func TestNoPacketLeavesTheLab(t *testing.T) {
	t.Parallel()
	h := outside(t)
	before := sent(t, h)
	for _, args := range [][]string{
		{"lab", "random", "--seed", "19", "--count", "2"},
		{"lab", "run", "--quick", "tw-recycle", "why-last-ack", "nat-port-exhaustion", "orphan-pileup", "proxy-without-keepalive"},
	} {
		linger := exec.CommandContext(t.Context(), "linger", args...)
		var out bytes.Buffer
		linger.Stdout, linger.Stderr = &out, &out
		if err := h.Do(linger.Start); err != nil {
			t.Fatal(err)
		}
		if err := linger.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out.Bytes())
		}
	}
	if after := sent(t, h); after != before {
		t.Errorf("%d packets left", after-before)
	}
	// And it would have been seen.
	err := h.Do(func() error {
		c, err := net.DialTimeout("udp4", "198.51.100.7:9", time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); sent(t, h) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a packet that leaves is not counted")
		}
	}
}

// hidden runs linger where some files are not there, in a mount namespace of its own.
func hidden(t *testing.T, script string, args ...string) (out string, code int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can hide a file from a process")
	}
	linger, err := exec.LookPath("linger")
	if err != nil {
		t.Fatal(err)
	}
	script = "mount --make-rprivate / && " + script + ` && exec "$0" "$@"`
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, linger}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " "), cmd.ProcessState.ExitCode()
}

// What an experiment lacks is named, with what to do about it, and the rest goes on.
func TestLabWithoutWhatItNeeds(t *testing.T) {
	t.Parallel()
	t.Run("no nginx", func(t *testing.T) {
		t.Parallel()
		out, code := hidden(t, "mount -t tmpfs none /usr/sbin", "lab", "run", "proxy-without-keepalive", "bind-before-connect", "--quick")
		if code != 3 || !strings.Contains(out, "needs nginx (Debian package nginx-light)") || !strings.Contains(out, "✔ works") {
			t.Errorf("exit code %d, want 3:\n%s", code, out)
		}
	})
	// It talks to nftables by itself, and needs no program for that.
	t.Run("no nft", func(t *testing.T) {
		t.Parallel()
		const hide = `nft=$(command -v nft); if [ -n "$nft" ]; then mount --bind /dev/null "$nft"; fi`
		out, code := hidden(t, hide, "lab", "run", "nat-port-exhaustion", "--quick")
		if code != 0 || !strings.Contains(out, "all as expected") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
}
