package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// spread is the least, the median and the most of some numbers.
type spread struct{ min, median, max float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return spread{}
	}
	half := len(sorted) / 2
	median := sorted[half]
	if len(sorted)%2 == 0 {
		median = (sorted[half-1] + sorted[half]) / 2
	}
	return spread{sorted[0], median, sorted[len(sorted)-1]}
}

func (s spread) seconds() string { return fmt.Sprintf("%.3f s (%.3f to %.3f)", s.median, s.min, s.max) }

func walls(runs []measure) spread {
	return over(runs, func(m measure) float64 { return m.wall.Seconds() })
}

func cpus(runs []measure) spread {
	return over(runs, func(m measure) float64 { return m.cpu.Seconds() })
}

// peaks are in megabytes.
func peaks(runs []measure) spread {
	return over(runs, func(m measure) float64 { return float64(m.peak) / 1e6 })
}

func over(runs []measure, of func(measure) float64) spread {
	values := make([]float64, len(runs))
	for i, m := range runs {
		values[i] = of(m)
	}
	return spreadOf(values)
}

func (b *bench) write(w io.Writer) {
	var name unix.Utsname
	_ = unix.Uname(&name) // cannot fail with a valid pointer
	fmt.Fprintf(w, `# Benchmarks

Written by %[1]smake bench%[1]s on Linux %[2]s, %[3]d CPUs, %[4]s. Whole processes, run in turn in a network
namespace that holds so many TIME_WAIT sockets and nothing else; medians, and in brackets the least and the most. A
ratio is the wall time of linger diagnose to that of the program in the row, taken between neighbouring runs. The bare drain asks the
kernel for the same sockets and throws the answer away: nobody can be faster than that. Memory is the peak resident
size, and never shows as less than that of the program that starts them, 10 MB.

| sockets | program | runs | wall | CPU | memory | linger's time to this |
|---:|---|---:|---:|---:|---:|---:|
`, "`", unix.ByteSliceToString(name.Release[:]), runtime.NumCPU(), runtime.Version())
	for _, r := range b.rows {
		fmt.Fprintf(w, "| %s | `%s` | %d | %s | %.3f s | %.0f MB | %.2f (%.2f to %.2f) |\n",
			count(r.sockets), r.program, len(r.runs), walls(r.runs).seconds(), cpus(r.runs).median, peaks(r.runs).max,
			r.ratio.median, r.ratio.min, r.ratio.max)
	}
	fmt.Fprint(w, "\n## Limits\n\n| | limit, and what was measured |\n|---|---|\n")
	for _, l := range b.limits {
		verdict := "held"
		if !l.held {
			verdict = "**missed**"
		}
		fmt.Fprintf(w, "| %s | %s |\n", verdict, l.text)
	}
}

// count writes a number with a comma between its thousands.
func count(n int) string {
	digits := fmt.Sprint(n)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, groups...), ",")
}
