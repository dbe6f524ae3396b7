package main

import (
	"context"
	"fmt"
	"os"

	"linger/internal/lab/stage"
)

// reapSockets is how many TIME_WAIT sockets linger reap and ss -K destroy.
const reapSockets = 214_000

// reap measures linger reap beside ss -K, by turns, each on sockets of its own.
func (b *bench) reap(ctx context.Context) error {
	state, err := os.MkdirTemp("", "linger-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	programs := []struct {
		name string
		argv []string
	}{
		{"linger reap", []string{b.linger, "reap", "--local", "127.0.0.0/8", "--yes", "-o", "json", "--state-dir", state}},
		{"ss -K state time-wait", []string{"ss", "-K", "-Htan", "state", "time-wait"}},
	}
	rows := []row{{sockets: reapSockets, program: programs[0].name}, {sockets: reapSockets, program: programs[1].name}}
	var times, memory []float64
	for _, order := range [][2]int{{0, 1}, {1, 0}, {0, 1}} { // A B B A A B
		var pair [2]measure
		for _, i := range order {
			fmt.Fprintf(b.progress, "bench: %s of %s sockets\n", programs[i].name, count(reapSockets))
			err := filled(ctx, reapSockets, func(n *stage.Node) (err error) {
				pair[i], err = inside(ctx, n, programs[i].argv[0], programs[i].argv[1:]...)
				return err
			})
			if err != nil {
				return err
			}
			rows[i].runs = append(rows[i].runs, pair[i])
		}
		times = append(times, pair[0].wall.Seconds()/pair[1].wall.Seconds())
		memory = append(memory, float64(pair[0].peak)/float64(pair[1].peak))
	}
	rows[0].ratio, rows[1].ratio = spreadOf([]float64{1}), spreadOf(times)
	b.rows = append(b.rows, rows...)
	inTime, inMemory := spreadOf(times), spreadOf(memory)
	b.limit(inTime.median <= 1./5, "reap of %s sockets in at most 1/5 of the time of ss -K: %.3f", count(reapSockets), inTime.median)
	b.limit(inMemory.median <= 1./10, "and in at most 1/10 of its memory: %.3f", inMemory.median)
	return nil
}
