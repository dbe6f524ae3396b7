package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"linger/internal/lab/stage"
)

// against measures a build of linger beside another one, in turn, and writes what each
// command takes: the ratios are of neighbouring runs, so that they hold on a noisy machine.
func against(ctx context.Context, linger, other string, out, progress io.Writer) error {
	var builds [2]string
	for i, path := range []string{linger, other} {
		whole, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		builds[i] = whole
	}
	fmt.Fprintf(out, "%s against %s: medians, and the ratio of neighbouring runs (least to most)\n", linger, other)
	for _, size := range []struct{ sockets, fills, rounds int }{{1_000, 1, 21}, {100_000, 1, 15}, {1_000_000, 3, 4}} {
		commands := [][]string{
			{"diagnose", "--window", "0", "-o", "json"}, {"diagnose", "--window", "0"}, {"diagnose", "--window", "0", "-v"},
			{"diagnose", "--window", "0", "-o", "markdown"}, {"sockets", "--window", "0", "-o", "json"},
			{"sockets", "--list", "--state", "listen", "-o", "json"},
		}
		taken := make([][2][]measure, len(commands))
		for fill := range size.fills {
			fmt.Fprintf(progress, "bench: %s TIME_WAIT sockets, fill %d of %d\n", count(size.sockets), fill+1, size.fills)
			err := filled(ctx, size.sockets, func(n *stage.Node) error {
				for round := range size.rounds {
					for c, args := range commands {
						for i := range builds {
							i = (i + round) % 2 // neither is always the first
							m, err := inside(ctx, n, builds[i], args...)
							if err != nil {
								return err
							}
							taken[c][i] = append(taken[c][i], m)
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		for c, args := range commands {
			fmt.Fprintf(out, "%9s  %-40s", count(size.sockets), fmt.Sprint(args))
			for _, figure := range []struct {
				name string
				of   func([]measure) spread
				one  func(measure) float64
			}{
				{"wall s", walls, func(m measure) float64 { return m.wall.Seconds() }},
				{"cpu s", cpus, func(m measure) float64 { return m.cpu.Seconds() }},
				{"MB", peaks, func(m measure) float64 { return float64(m.peak) }},
			} {
				this, that := taken[c][0], taken[c][1]
				ratios := make([]float64, len(this))
				for i := range ratios {
					ratios[i] = figure.one(this[i]) / figure.one(that[i])
				}
				r := spreadOf(ratios)
				fmt.Fprintf(out, "  %s %.3f/%.3f ×%.2f (%.2f–%.2f)", figure.name,
					figure.of(this).median, figure.of(that).median, r.median, r.min, r.max)
			}
			fmt.Fprintln(out)
		}
	}
	return nil
}
