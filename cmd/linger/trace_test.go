package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// calls opens and closes connections to a listener of its own.
type calls struct{ net.Listener }

func newCalls(t *testing.T) calls {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return calls{l}
}

func (c calls) make(t *testing.T, n int) {
	t.Helper()
	for range n {
		client, err := net.Dial("tcp4", c.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := c.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
		server.Read(make([]byte, 1)) // the other's end
		server.Close()
	}
}

func mayTrace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("linger", "trace", "--for", "1ms").CombinedOutput(); err != nil {
		t.Skipf("no tracing here: %s", out)
	}
}

// TestTraceAtATerminal: a table that is drawn over, none of whose lines wrap, and the totals on ^C.
func TestTraceAtATerminal(t *testing.T) {
	t.Parallel()
	mayTrace(t)
	warm := newCalls(t)
	s := atTerminal(t, "trace", "--interval", "200ms", "--netns", "/proc/self/ns/net")
	for deadline := time.Now().Add(patience); !strings.Contains(s.text(), "linger.test"); warm.make(t, 10) {
		if time.Now().After(deadline) {
			t.Fatalf("on the terminal is:\n%q", s.text())
		}
	}
	s.await(`(?s)opened.*per second:.*linger\.test.*\x1b\[\d+A\x1b\[J.*per second:`)
	s.write("\x03")
	s.await(`(?s)TOTAL .* in all:.*linger\.test`)
	if code := s.exitCode(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}
	// The terminal shows ^C where the cursor stands; the totals stand in lines of their own.
	screen := s.screen()
	if !strings.HasPrefix(screen[0], "TOTAL  ") || strings.Contains(strings.Join(screen, "\n"), "per second") {
		t.Errorf("in the end the terminal shows\n%s", strings.Join(screen, "\n"))
	}
	for line := range strings.Lines(s.text()) {
		if _, drawn, erased := strings.Cut(line, "\x1b[J"); erased {
			line = drawn
		}
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 100 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// output is what a program writes while others look.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// TestTwoTracesOfWhichOneIsKilled: the other goes on, and its lines add up to its total, and to what
// was done.
func TestTwoTracesOfWhichOneIsKilled(t *testing.T) {
	mayTrace(t)
	const half = 200
	var traces [2]*exec.Cmd
	var told [2]output
	for i := range traces {
		traces[i] = exec.CommandContext(t.Context(), "linger", "trace", "-o", "jsonl", "--interval", "100ms", "--netns", "/proc/self/ns/net")
		traces[i].Stdout, traces[i].Stderr = &told[i], os.Stderr
		if err := traces[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	warm, counted := newCalls(t), newCalls(t)
	for deadline := time.Now().Add(patience); ; warm.make(t, 10) {
		if strings.Contains(told[0].String(), warm.Addr().String()) && strings.Contains(told[1].String(), warm.Addr().String()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("told are:\n%s\n%s", told[0].String(), told[1].String())
		}
	}
	counted.make(t, half)
	if err := traces[0].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	traces[0].Wait()
	counted.make(t, half)
	if err := traces[1].Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := traces[1].Wait(); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Kind, Process, Role, Remote string
		Opens                       int
		ClosedHere                  int `json:"closed_here"`
		ClosedThere                 int `json:"closed_there"`
	}
	var mine, all, total row
	for line := range strings.Lines(told[1].String()) {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.Kind == "total" {
			total = r
			continue
		}
		all.Opens, all.ClosedHere, all.ClosedThere = all.Opens+r.Opens, all.ClosedHere+r.ClosedHere, all.ClosedThere+r.ClosedThere
		if r.Remote == counted.Addr().String() && r.Role == "connector" {
			mine.ClosedHere += r.ClosedHere
			if r.Process == "linger.test" { // who closes may be who looks for owners just then (docs/tracing.md)
				mine.Opens += r.Opens
			}
		}
	}
	if mine.Opens != 2*half || mine.ClosedHere != 2*half {
		t.Errorf("%d opened and %d closed here, want %d each", mine.Opens, mine.ClosedHere, 2*half)
	}
	if total.Kind == "" || all.Opens != total.Opens || all.ClosedHere != total.ClosedHere || all.ClosedThere != total.ClosedThere {
		t.Errorf("the lines add up to %+v, the total is %+v", all, total)
	}
}
