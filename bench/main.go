// Bench measures linger as whole processes beside ss, netstat and a bare drain
// of the same sockets, in namespaces that it fills with TIME_WAIT sockets itself,
// and writes the table of docs/benchmarks.md. It needs root.
//
// Runs alternate, so that a machine whose speed drifts drifts for all; ratios are
// of neighbouring runs. It exits with 1 when a limit is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"linger/internal/lab/stage"
)

func main() {
	stage.BecomeWorker()
	if len(os.Args) == 2 && os.Args[1] == drainArgument {
		if err := drain(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	linger := flag.String("linger", "bin/linger", "the stripped program to measure")
	out := flag.String("out", "docs/benchmarks.md", "where the table goes")
	trace := flag.String("trace", "", "measure tracing instead, and write its table there")
	other := flag.String("against", "", "measure the program beside this other build of it instead, and print the ratios")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	measure := func() error { return run(ctx, *linger, *out, os.Stderr) }
	if *trace != "" {
		measure = func() error { return tracing(ctx, *linger, *trace, os.Stderr) }
	}
	if *other != "" {
		measure = func() error { return against(ctx, *linger, *other, os.Stdout, os.Stderr) }
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, linger, out string, progress io.Writer) error {
	linger, err := filepath.Abs(linger)
	if err != nil {
		return err
	}
	for program, pkg := range map[string]string{"ss": "iproute2", "netstat": "net-tools"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: install it (Debian package %s)", err, pkg)
		}
	}
	b := &bench{linger: linger, progress: progress}
	for _, step := range []func(context.Context) error{b.build, b.crowd, b.sizes, b.reap} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	b.write(f)
	if err := f.Close(); err != nil {
		return err
	}
	for _, l := range b.limits {
		if !l.held {
			return fmt.Errorf("missed: %s (see %s)", l.text, out)
		}
	}
	return nil
}

// bench gathers what is measured.
type bench struct {
	linger   string
	progress io.Writer
	rows     []row
	limits   []limit
}

// row is one program at one size.
type row struct {
	sockets int
	program string
	runs    []measure
	ratio   spread // of linger's wall time to this program's, by neighbouring runs
}

type limit struct {
	text string
	held bool
}

func (b *bench) limit(held bool, format string, args ...any) {
	b.limits = append(b.limits, limit{fmt.Sprintf(format, args...), held})
}

// measure is one run of a program, as the kernel accounts for it.
type measure struct {
	wall, cpu time.Duration
	peak      int64 // bytes
}

// inside runs a program in a node's namespace and measures it.
func inside(ctx context.Context, n *stage.Node, name string, args ...string) (measure, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout = nowhere{} // through a pipe, as when another program reads it
	var start time.Time
	err := n.Do(func() error {
		start = time.Now()
		return cmd.Start()
	})
	if err != nil {
		return measure{}, err
	}
	err = cmd.Wait()
	wall := time.Since(start)
	// linger says with 1 and 2 that it found something.
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() <= 2 {
		err = nil
	}
	if err != nil {
		return measure{}, fmt.Errorf("%s: %w", name, err)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return measure{
		wall: wall,
		cpu:  cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		peak: used.Maxrss << 10,
	}, nil
}

// nowhere takes what a program prints.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// build measures a build from an empty cache.
func (b *bench) build(ctx context.Context) error {
	fmt.Fprintln(b.progress, "bench: building from an empty cache")
	dir, err := os.MkdirTemp("", "linger-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "linger"), "./cmd/linger")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOCACHE="+filepath.Join(dir, "cache"))
	cmd.Stderr = b.progress
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	took := time.Since(start)
	info, err := os.Stat(filepath.Join(dir, "linger"))
	if err != nil {
		return err
	}
	b.limit(took < 90*time.Second, "build from an empty cache in under 90 s on two cores: %.0f s", took.Seconds())
	b.limit(info.Size() < 15_000_000, "stripped program under 15 MB: %.1f MB", float64(info.Size())/1e6)
	return nil
}

// crowd measures 200 namespaces of which three are busy.
func (b *bench) crowd(ctx context.Context) (err error) {
	const namespaces, busy, each = 200, 3, 100_000
	fmt.Fprintf(b.progress, "bench: making %d namespaces, %d of them with %d TIME_WAIT sockets\n", namespaces, busy, each)
	var all []*stage.Topology
	defer func() {
		for _, t := range all {
			err = errors.Join(err, t.Close())
		}
	}()
	for i := range namespaces {
		t, err := stage.NewLoopback(fmt.Sprintf("crowd-%d", i))
		if err != nil {
			return err
		}
		all = append(all, t)
		if i >= busy {
			// A process keeps the namespace where it can be found.
			if _, err := t.Nodes[0].Start(ctx, "idle"); err != nil {
				return err
			}
		}
	}
	for i := range busy {
		if _, err := stage.Fill(ctx, all[i].Nodes[0], stage.FillSpec{Sockets: each}); err != nil {
			return err
		}
	}
	var runs []measure
	for range 11 {
		m, err := inside(ctx, all[0].Nodes[0], b.linger, "diagnose", "--window", "0", "-o", "json")
		if err != nil {
			return err
		}
		runs = append(runs, m)
	}
	wall, peak := walls(runs), peaks(runs)
	b.limit(wall.median <= 0.5, "%d namespaces, %d busy with %s sockets each, in at most 0.5 s: %s",
		namespaces, busy, count(each), wall.seconds())
	b.limit(peak.max <= 40, "and in at most 40 MB: %.0f MB at most", peak.max)
	return nil
}

// The programs of sizes that limits are about; linger diagnose is the first.
const (
	table   = 1
	drained = 2
	ss      = 3
)

// sizes measures linger beside its peers at growing numbers of sockets.
func (b *bench) sizes(ctx context.Context) error {
	for _, size := range []struct{ sockets, fills, rounds int }{
		{10_000, 1, 11}, {100_000, 1, 11}, {1_000_000, 3, 3},
	} {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		programs := []struct {
			name string
			argv []string
			once bool // a fill, for it takes long
		}{
			{"linger diagnose --window 0 -o json", []string{b.linger, "diagnose", "--window", "0", "-o", "json"}, false},
			{"linger sockets --window 0 -o json", []string{b.linger, "sockets", "--window", "0", "-o", "json"}, false},
			{"bare drain of the same dump", []string{self, drainArgument}, false},
			{"ss -Htan state time-wait", []string{"ss", "-Htan", "state", "time-wait"}, false},
			{"netstat -ant", []string{"netstat", "-ant"}, size.sockets > 100_000},
		}
		rows := make([]row, len(programs))
		ratios := make([][]float64, len(programs))
		var tableToDrain, tableToSS []float64
		for i, p := range programs {
			rows[i] = row{sockets: size.sockets, program: p.name}
		}
		for fill := range size.fills {
			fmt.Fprintf(b.progress, "bench: %s TIME_WAIT sockets, fill %d of %d\n", count(size.sockets), fill+1, size.fills)
			err := filled(ctx, size.sockets, func(n *stage.Node) error {
				for round := range size.rounds {
					var linger time.Duration
					took := make([]float64, len(programs))
					for i, p := range programs {
						if p.once && round > 0 {
							continue
						}
						m, err := inside(ctx, n, p.argv[0], p.argv[1:]...)
						if err != nil {
							return err
						}
						if i == 0 {
							linger = m.wall
						}
						took[i] = m.wall.Seconds()
						rows[i].runs = append(rows[i].runs, m)
						ratios[i] = append(ratios[i], linger.Seconds()/m.wall.Seconds())
					}
					tableToDrain = append(tableToDrain, took[table]/took[drained])
					tableToSS = append(tableToSS, took[table]/took[ss])
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		for i := range rows {
			rows[i].ratio = spreadOf(ratios[i])
		}
		b.rows = append(b.rows, rows...)
		if size.sockets == 1_000_000 {
			floor := walls(rows[drained].runs).median / walls(rows[ss].runs).median
			b.limit(rows[ss].ratio.median <= 1./6, "at 1 M at most 1/6 (0.167) of the time of ss: %.3f; the bare drain alone: %.3f",
				rows[ss].ratio.median, floor)
			b.limit(rows[drained].ratio.median <= 1.5, "at 1 M at most 1.5 times the bare drain: %.2f", rows[drained].ratio.median)
			bySS, byDrain := spreadOf(tableToSS).median, spreadOf(tableToDrain).median
			b.limit(bySS <= 1./6, "linger sockets, at 1 M at most 1/6 (0.167) of the time of ss: %.3f", bySS)
			b.limit(byDrain <= 1.5, "linger sockets, at 1 M at most 1.5 times the bare drain: %.2f", byDrain)
		}
		peak := peaks(rows[table].runs)
		b.limit(peak.max <= 40, "linger sockets, at %s at most 40 MB of memory: %.0f MB at most", count(size.sockets), peak.max)
		peak = peaks(rows[0].runs)
		b.limit(peak.max <= 40, "at %s at most 40 MB of memory: %.0f MB at most", count(size.sockets), peak.max)
	}
	return nil
}

// filled calls fn with a namespace that holds so many TIME_WAIT sockets. The
// first of them go 60 s after they came, which bounds what fn can measure.
func filled(ctx context.Context, sockets int, fn func(*stage.Node) error) (err error) {
	t, err := stage.NewLoopback("bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	dialed, err := stage.Fill(ctx, t.Nodes[0], stage.FillSpec{Sockets: sockets})
	if err != nil {
		return err
	}
	if dialed.Opened != sockets {
		return fmt.Errorf("made %d of %d sockets", dialed.Opened, sockets)
	}
	runtime.GC()
	return fn(t.Nodes[0])
}
