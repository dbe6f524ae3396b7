package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/lab/stage"
	"linger/internal/proof"
)

// The load of a run, and how often it is run. Each destination has source ports for all of
// it, so that no connect() looks long for one.
const (
	churned     = 40_000
	churnPort   = 8080
	warmPort    = 8081
	destination = 8
	lingerPairs = 36
	peerPairs   = 10
	overhead    = 3.0 // percent more CPU per connection, at most
)

// tracer is a program that watches connections.
type tracer struct {
	name  string
	argv  func(netns string) []string
	pairs int
	// counted is how many ends of the load's connections its output tells of.
	counted func(output []byte) int
}

// traced is what was measured with a tracer beside none.
type traced struct {
	tracer
	cpu, rate proof.Interval // percent more CPU per connection, and connections per second to those without, by pairs
	without   proof.Interval // microseconds of CPU per connection
	perSecond proof.Interval // connections, without
	missed    spread         // ends that it did not tell of, per run
}

// tracing measures linger trace, tcplife and tcpstates beside nothing, in the order A B B A.
func tracing(ctx context.Context, linger, out string, progress io.Writer) error {
	linger, err := filepath.Abs(linger)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("/usr/sbin/tcplife"); err != nil {
		install := exec.CommandContext(ctx, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "libbpf-tools")
		fmt.Fprintln(progress, "bench: installing libbpf-tools, to measure beside them")
		if err := install.Run(); err != nil {
			return fmt.Errorf("install libbpf-tools: %w", err)
		}
	}
	lingerTrace := func(netns string) []string { return []string{linger, "trace", "-o", "jsonl", "--netns", netns} }
	tracers := []tracer{
		{"linger trace -o jsonl", lingerTrace, lingerPairs, countLinger},
		{"tcplife", withTracefs("tcplife"), peerPairs, countLines("", fmt.Sprint(churnPort))},
		{"tcpstates", withTracefs("tcpstates"), peerPairs, countLines("-> CLOSE ", fmt.Sprint(churnPort))},
	}
	var results []traced
	for _, tr := range tracers {
		r, err := pairs(ctx, tr, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", tr.name, err)
		}
		results = append(results, r)
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	held := writeTracing(f, results)
	if err := f.Close(); err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("missed a limit of tracing (see %s)", out)
	}
	return nil
}

// withTracefs is a program of the Debian package libbpf-tools. It wants tracefs, which is mounted
// for it alone where it is not.
func withTracefs(name string) func(string) []string {
	const script = "test -e /sys/kernel/tracing/events || mount -t tracefs nodev /sys/kernel/tracing; exec /usr/sbin/"
	return func(string) []string { return []string{"unshare", "-m", "sh", "-c", script + name} }
}

// pairs measures one tracer.
func pairs(ctx context.Context, tr tracer, progress io.Writer) (traced, error) {
	var cpu, rate, without, perSecond, missed []float64
	for pair := range tr.pairs {
		fmt.Fprintf(progress, "bench: %s, pair %d of %d\n", tr.name, pair+1, tr.pairs)
		var bare, with churn
		var err error
		for _, watched := range []bool{pair%2 == 1, pair%2 == 0} {
			if watched {
				with, err = load(ctx, &tr)
			} else {
				bare, err = load(ctx, nil)
			}
			if err != nil {
				return traced{}, err
			}
		}
		cpu = append(cpu, 100*(with.perConnection()/bare.perConnection()-1))
		rate = append(rate, with.rate()/bare.rate())
		without = append(without, bare.perConnection())
		perSecond = append(perSecond, bare.rate())
		missed = append(missed, float64(2*with.opened-with.told))
	}
	return traced{
		tr, proof.IntervalOf(cpu), proof.IntervalOf(rate), proof.IntervalOf(without), proof.IntervalOf(perSecond), spreadOf(missed),
	}, nil
}

// churn is one run of the load.
type churn struct {
	opened, told int
	cpu, wall    time.Duration
}

func (c churn) perConnection() float64 { return float64(c.cpu.Microseconds()) / float64(c.opened) }
func (c churn) rate() float64          { return float64(c.opened) / c.wall.Seconds() }

// load opens and closes connections in a namespace of their own, while a tracer watches or
// none does. The CPU is that of both ends, of the tracer while it watches, and of the threads
// that do the kernel's deferred work.
func load(ctx context.Context, tr *tracer) (c churn, err error) {
	t, err := stage.NewLoopback("bench-trace")
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	node := t.Nodes[0]
	if err := node.Set("net.ipv4.tcp_max_tw_buckets", fmt.Sprint(4*churned)); err != nil {
		return c, err
	}
	server, err := node.Start(ctx, "bench-server")
	if err != nil {
		return c, err
	}
	client, err := node.Start(ctx, "bench-client")
	if err != nil {
		return c, err
	}
	var to, warm []netip.AddrPort
	for i := range destination {
		to = append(to, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}), churnPort))
	}
	warm = append(warm, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, 1}), warmPort))
	if _, err := server.Serve(ctx, stage.ServeSpec{Endpoints: append(warm, to...), Close: stage.CloseSecond}); err != nil {
		return c, err
	}
	var watch *watching
	warmUp := func() error {
		_, err := client.Churn(ctx, stage.DialSpec{To: warm, Count: 200})
		return err
	}
	if tr != nil {
		if watch, err = startWatching(ctx, tr.argv(node.Path())); err != nil {
			return c, err
		}
		defer watch.kill()
		for deadline := time.Now().Add(10 * time.Second); watch.output.Len() == 0; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				return c, errors.New("it tells nothing")
			}
			if err := warmUp(); err != nil {
				return c, err
			}
		}
	} else if err := warmUp(); err != nil {
		return c, err
	}
	used := func() time.Duration {
		total := cpuOf(server.PID()) + cpuOf(client.PID()) + softirqThreads()
		if watch != nil {
			total += cpuOf(watch.cmd.Process.Pid)
		}
		return total
	}
	before, start := used(), time.Now()
	done, err := client.Churn(ctx, stage.DialSpec{To: to, Count: churned})
	if err != nil {
		return c, err
	}
	if done.Failed+done.NoPort > 0 {
		return c, fmt.Errorf("%d of %d connections failed: %s", done.Failed+done.NoPort, churned, done.FirstFailure)
	}
	c.opened, c.wall = done.Opened, time.Since(start)
	// The server has seen the last ones close when it says so.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		served, err := server.Served(ctx)
		if err != nil {
			return c, err
		}
		if served.Ended >= int64(done.Opened) || time.Now().After(deadline) {
			break
		}
	}
	c.cpu = used() - before
	if watch != nil {
		// What it has seen it tells within a second.
		time.Sleep(1500 * time.Millisecond)
		if err := watch.stop(); err != nil {
			return c, err
		}
		c.told = tr.counted(watch.output.Bytes())
	}
	return c, nil
}

// watching is a tracer that runs.
type watching struct {
	cmd    *exec.Cmd
	output buffer
}

func startWatching(ctx context.Context, argv []string) (*watching, error) {
	w := &watching{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	w.cmd.Stdout = &w.output
	return w, w.cmd.Start()
}

// stop ends it as SIGINT does.
func (w *watching) stop() error {
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := w.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // each has its own opinion on what SIGINT is
	}
	return err
}

func (w *watching) kill() { _ = w.cmd.Process.Kill() } // it has ended, unless an error came first

// buffer is written by one goroutine and read by another.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Len()
}

func (b *buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Bytes()
}

// cpuOf is the CPU that a process and its threads have used, those that have ended too: its clock of
// clock_getcpuclockid(3), which counts nanoseconds where /proc/PID/stat counts ticks.
func cpuOf(pid int) time.Duration {
	const perProcess, sched = 0, 2 // CPUCLOCK_SCHED of include/linux/posix-timers.h
	var used unix.Timespec
	if unix.ClockGettime(^int32(pid)<<3|perProcess|sched, &used) != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

// softirqThreads is the CPU of ksoftirqd.
func softirqThreads() (total time.Duration) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && bytes.HasPrefix(text, []byte("ksoftirqd/")) {
			var pid int
			fmt.Sscanf(name, "/proc/%d/comm", &pid)
			total += cpuOf(pid)
		}
	}
	return total
}

// countLinger adds up the ends of the load's connections.
func countLinger(output []byte) (ends int) {
	service := fmt.Sprintf(":%d", churnPort)
	for line := range bytes.Lines(output) {
		var row struct {
			Kind, Local, Remote string
			ClosedHere          int `json:"closed_here"`
			ClosedThere         int `json:"closed_there"`
		}
		if json.Unmarshal(line, &row) == nil && row.Kind == "interval" &&
			(strings.HasSuffix(row.Local, service) || strings.HasSuffix(row.Remote, service)) {
			ends += row.ClosedHere + row.ClosedThere
		}
	}
	return ends
}

// countLines counts lines that hold a text, and a word.
func countLines(text, word string) func([]byte) int {
	return func(output []byte) (n int) {
		for line := range strings.Lines(string(output)) {
			if strings.Contains(line, text) && strings.Contains(line, " "+word+" ") {
				n++
			}
		}
		return n
	}
}

func writeTracing(w io.Writer, results []traced) (held bool) {
	var name unix.Utsname
	_ = unix.Uname(&name) // cannot fail with a valid pointer
	fmt.Fprintf(w, `# Benchmarks of tracing

Written by %[1]smake bench%[1]s on Linux %[2]s, %[3]d CPUs, %[4]s. One program opens and closes %[5]s connections over loopback
as fast as it can, to one that accepts them, in a network namespace; a tracer watches, or none does. The orders alternate
(A B B A); each number is of pairs of neighbouring runs: the median, and in brackets two values that enclose the true
one at 95 %% (for the ends not told: the least and the most). The CPU is that of both ends, of the tracer meanwhile, and of
ksoftirqd. Told is each end of each connection that the tracer's output has.

| tracer | pairs | without: CPU per connection | without: connections/s | CPU with it | connections/s with it | ends not told, of %[6]s |
|---|---:|---:|---:|---:|---:|---:|
`, "`", unix.ByteSliceToString(name.Release[:]), runtime.NumCPU(), runtime.Version(), count(churned), count(2*churned))
	for _, r := range results {
		fmt.Fprintf(w, "| `%s` | %d | %.1f µs | %s | %+.1f %% (%+.1f to %+.1f) | × %.2f (%.2f to %.2f) | %.0f (%.0f to %.0f) |\n",
			r.name, r.pairs, r.without.Median, count(int(r.perSecond.Median)), r.cpu.Median, r.cpu.Low, r.cpu.High,
			r.rate.Median, r.rate.Low, r.rate.High, r.missed.median, r.missed.min, r.missed.max)
	}
	linger := results[0]
	fmt.Fprint(w, "\n## Limits\n\n| | limit, and what was measured |\n|---|---|\n")
	held = true
	for _, l := range []limit{
		{fmt.Sprintf("at most %.0f %% more CPU per connection: %.1f %%", overhead, linger.cpu.Median), linger.cpu.Median <= overhead},
		{fmt.Sprintf("no connection uncounted: %.0f at most", linger.missed.max), linger.missed.max <= 0 && linger.missed.min >= 0},
	} {
		verdict := "held"
		if !l.held {
			verdict, held = "**missed**", false
		}
		fmt.Fprintf(w, "| %s | %s |\n", verdict, l.text)
	}
	return held
}
