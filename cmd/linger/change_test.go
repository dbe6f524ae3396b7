package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"linger/internal/kernel/netns/netnstest"
	"linger/internal/lab/stage"
)

// told is what linger tells of a change, as far as it is asked here.
type told struct {
	ID, State   string
	SecondsLeft *float64 `json:"seconds_left"`
	Values      []struct {
		Key, Old, New, Now string
		Effects            []struct {
			Name          string
			Before, After float64
			Now           *float64
		}
	}
}

// host is where commands are run: in a node's namespace, with a state directory.
type host struct {
	t    *testing.T
	node *stage.Node
	dir  string
}

// run runs a command of linger's there, which succeeds, and returns what it writes.
func (h *host) run(args ...string) string {
	h.t.Helper()
	if args[0] != "plan" {
		args = append(args, "--state-dir", h.dir)
	}
	linger := exec.CommandContext(h.t.Context(), "linger", args...)
	out, errs := &bytes.Buffer{}, &bytes.Buffer{}
	linger.Stdout, linger.Stderr = out, errs
	err := h.node.Do(linger.Start)
	if err == nil {
		err = linger.Wait()
	}
	if err != nil {
		h.t.Fatalf("linger %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out.String()
}

func (h *host) change(args ...string) (c told) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.run(append(args, "-o", "json")...)), &c); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// status is the one change that is pending.
func (h *host) status() told {
	h.t.Helper()
	var list struct{ Changes []told }
	if err := json.Unmarshal([]byte(h.run("status", "-o", "json")), &list); err != nil || len(list.Changes) != 1 {
		h.t.Fatalf("%d changes are pending, %v", len(list.Changes), err)
	}
	return list.Changes[0]
}

// apply plans one setting, and applies the plan.
func (h *host) apply(set, within string) told {
	h.t.Helper()
	file := filepath.Join(h.dir, "plan.json")
	h.run("plan", "--set", set, "--out", file)
	return h.change("apply", file, "--confirm-within", within)
}

func (h *host) sysctl(key string) (value string) {
	h.t.Helper()
	err := h.node.Do(func() error {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		value = strings.Join(strings.Fields(string(text)), " ")
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return value
}

// outOfPorts is a client that has no source port left for the one service that it knows.
func outOfPorts(ctx context.Context, t *testing.T) (h *host, churn func() stage.Dialed) {
	t.Helper()
	pair, err := stage.NewPair("client", "server")
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() { pair.Close() })
	client, server := pair.Nodes[0], pair.Nodes[1]
	const ports = 400
	err = errors.Join(
		client.Set("net.ipv4.ip_local_port_range", fmt.Sprintf("40000 %d", 40_000+ports-1)),
		client.Set("net.ipv4.tcp_tw_reuse", "0"),
	)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(ctx, "lab-server")
	if err != nil {
		t.Fatal(err)
	}
	service := netip.AddrPortFrom(server.IPv4, 8080)
	if _, err := s.Serve(ctx, stage.ServeSpec{Endpoints: []netip.AddrPort{service}, Close: stage.CloseSecond}); err != nil {
		t.Fatal(err)
	}
	c, err := client.Start(ctx, "lab-client")
	if err != nil {
		t.Fatal(err)
	}
	churn = func() stage.Dialed {
		t.Helper()
		done, err := c.Churn(ctx, stage.DialSpec{To: []netip.AddrPort{service}, Count: ports / 2})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	for churn().NoPort == 0 {
	}
	return &host{t, client, t.TempDir()}, churn
}

// TestWherePortsRunOut: connects fail for want of a source port. First tcp_tw_reuse is
// planned, applied, seen to work and confirmed, then a wider range, which nobody
// confirms. All by commands, as an engineer would.
func TestWherePortsRunOut(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	h, churn := outOfPorts(ctx, t)

	c := h.apply("net.ipv4.tcp_tw_reuse=1", "10m")
	for begin := time.Now(); churn().NoPort > 0; time.Sleep(100 * time.Millisecond) { // a second, from when on connect() takes ports over
		if time.Since(begin) > patience {
			t.Fatal("connects fail still")
		}
	}
	moved := false
	for _, e := range h.status().Values[0].Effects {
		if strings.HasPrefix(e.Name, "closes/s that the ports carry") {
			moved = e.Now != nil && *e.Now > e.Before && *e.Now == e.After
		}
	}
	if !moved {
		t.Errorf("status tells %+v", h.status())
	}
	if c := h.change("confirm", c.ID); c.State != "confirmed" {
		t.Errorf("state %s", c.State)
	}

	wide := h.apply("net.ipv4.ip_local_port_range=30001 40399", "30s")
	moved = false
	for _, e := range h.status().Values[0].Effects {
		if e.Name == "source ports" {
			moved = e.Before == 400 && e.After == 10_399 && e.Now != nil && *e.Now == e.After
		}
	}
	if !moved {
		t.Errorf("status tells %+v", h.status())
	}
	if done := churn(); done.NoPort > 0 {
		t.Errorf("with a wider range %d connects failed for want of a port", done.NoPort)
	}
	for begin := time.Now(); h.sysctl("net.ipv4.ip_local_port_range") != "40000 40399"; time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > patience+30*time.Second {
			t.Fatalf("the range is still %s", h.sysctl("net.ipv4.ip_local_port_range"))
		}
	}
	if h.sysctl("net.ipv4.tcp_tw_reuse") != "1" {
		t.Error("what was confirmed was taken back as well")
	}
	history := h.run("history")
	for _, want := range []string{"CONFIRMED  change " + c.ID, "ROLLED-BACK  change " + wide.ID, "it was not confirmed in time"} {
		if !strings.Contains(history, want) {
			t.Errorf("the history does not tell %q:\n%s", want, history)
		}
	}
}

// TestStatusAtATerminal: it is drawn anew in its place, line for line, until nothing is
// pending; Ctrl-C ends it before.
func TestStatusAtATerminal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h, _ := outOfPorts(ctx, t)
	c := h.apply("net.ipv4.ip_local_port_range=30001 40399", "10m")

	s := atTerminal(t, "status", "--state-dir", h.dir)
	s.await(`PENDING.*change ` + c.ID)
	s.await(`MOVED.*source ports: 400 → 10,399 now`)
	s.await(`(?s)in 9m\d+s.*\x1b\[\d+A\x1b\[J.*in 9m\d+s.*\x1b\[\d+A\x1b\[J`)
	// What is erased is what was drawn: from the first line to where the cursor stands.
	first, rest, _ := strings.Cut(s.text(), "\x1b[J")
	lines, up := strings.Count(first, "\n"), 0
	if _, err := fmt.Sscanf(first[strings.LastIndex(first, "\x1b["):], "\x1b[%dA", &up); err != nil || up != lines {
		t.Errorf("%d lines are drawn, and the cursor goes up %d, %v:\n%q%q", lines, up, err, first, rest)
	}

	interrupted := atTerminal(t, "status", "--state-dir", h.dir)
	interrupted.await(`PENDING`)
	interrupted.write("\x03")
	if code := interrupted.exitCode(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}

	h.run("confirm", c.ID)
	s.await("nothing is pending")
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestATerminalThatHangsUp: the end of the session in which a change was applied ends
// nobody who watches over it.
func TestATerminalThatHangsUp(t *testing.T) {
	t.Parallel()
	h := netnstest.New(t)
	dir, path := t.TempDir(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.FD())
	plan := filepath.Join(dir, "plan.json")
	command := []string{"plan", "--netns", path, "--set", "net.ipv4.tcp_tw_reuse=1", "--out", plan}
	out, err := exec.CommandContext(t.Context(), "linger", command...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := atTerminal(t, "apply", plan, "--live", "--confirm-within", "6s", "--state-dir", dir)
	s.await("PENDING")
	if code := s.exitCode(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if err := s.master.Close(); err != nil { // SIGHUP for all that belongs to it
		t.Fatal(err)
	}
	history := ""
	for begin := time.Now(); !strings.Contains(history, "ROLLED-BACK"); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("not taken back:\n%s", history)
		}
		text, err := os.ReadFile(filepath.Join(dir, "journal"))
		if err == nil && strings.Contains(string(text), `"undone"`) { // by the watcher, not by the command that is asked next
			out, err := exec.CommandContext(t.Context(), "linger", "history", "--state-dir", dir).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			history = string(out)
		}
	}
	if !strings.Contains(history, "WHY     it was not confirmed in time\n") {
		t.Errorf("history:\n%s", history)
	}
}

// TestReapAsks: at a terminal it shows what would go, with the hazard, and asks; only yes
// is yes.
func TestReapAsks(t *testing.T) {
	path, service := leftovers(t, 20)
	dir := t.TempDir()
	reap := []string{"reap", "--netns", path, "--remote", service, "--state-dir", dir}
	for _, answer := range []struct {
		text string
		code int
		want string
	}{{"\n", 1, "nothing was reaped"}, {"no\n", 1, "nothing was reaped"}, {"y\n", 0, "reaped"}} {
		s := atTerminal(t, reap...)
		s.await(`(?s)20 sockets.*HAZARD.*RFC 1337.*Destroy them\? \[y/N\] `)
		s.write(answer.text)
		s.await(answer.want)
		if code := s.exitCode(); code != answer.code {
			t.Errorf("%q: exit code %d, want %d", answer.text, code, answer.code)
		}
	}
	if told, _, _ := runReap(t, reap[1:]...); told.Sockets != 0 {
		t.Errorf("%d sockets are left", told.Sockets)
	}
}
