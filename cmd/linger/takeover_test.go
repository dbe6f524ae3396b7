package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"linger/internal/kernel/netns/netnstest"
)

// Who may not load BPF gets the estimate, and the reason; root gets what is exact.
func TestTakeoverNeedsRights(t *testing.T) {
	h := netnstest.New(t)
	err := h.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40099"), 0); err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:7000")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		for range 80 {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			s, err := l.Accept()
			if err != nil {
				return err
			}
			c.Close()
			if _, err := io.Copy(io.Discard, s); err != nil {
				return err
			}
			s.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.LookPath("linger")
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"--window", "0", "-o", "json", "--netns", "/proc/self/ns/net"}
	for _, who := range []struct {
		name    string
		command *exec.Cmd
		exact   bool
	}{
		{"root", exec.CommandContext(t.Context(), root, own...), true},
		{"nobody", asNobody(t, own...), false},
	} {
		var stdout, stderr bytes.Buffer
		who.command.Stdout, who.command.Stderr = &stdout, &stderr
		err := h.Do(who.command.Start)
		if err == nil {
			err = who.command.Wait()
		}
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 2) {
			t.Fatalf("%s: %v: %s", who.name, err, stderr.String())
		}
		var told struct {
			Gaps       []struct{ What, Cause, Needs string }
			Namespaces []struct {
				Groups []struct {
					Role     string
					Takeover *struct{ Bound, Ripe, Young int }
					Budget   *struct{ Exact bool }
				}
			}
		}
		if err := json.Unmarshal(stdout.Bytes(), &told); err != nil {
			t.Fatalf("%s: %v", who.name, err)
		}
		reasons := 0
		for _, gap := range told.Gaps {
			if strings.Contains(gap.What, "connect() may take over") {
				reasons++
				if who.exact || !strings.Contains(gap.Cause, "BPF is not allowed") || gap.Needs != "root" {
					t.Errorf("%s: gap %+v", who.name, gap)
				}
			}
		}
		if (reasons == 1) == who.exact {
			t.Errorf("%s: %d gaps of it", who.name, reasons)
		}
		connectors := 0
		for _, g := range told.Namespaces[0].Groups {
			if g.Role == "connector" {
				connectors++
				if (g.Takeover != nil) != who.exact || g.Budget == nil || g.Budget.Exact != who.exact {
					t.Errorf("%s: takeover %+v, budget %+v; want exact: %v", who.name, g.Takeover, g.Budget, who.exact)
				}
			}
		}
		if connectors != 1 {
			t.Errorf("%s: %d connectors:\n%s", who.name, connectors, stdout.String())
		}
	}
}
