// Command linger says what is wrong with a Linux host's TCP TIME_WAIT state, who
// causes it, and what to change.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"linger/internal/cli"
	"linger/internal/lab/stage"
)

func main() {
	stage.BecomeWorker() // returns unless this is a process of the laboratory
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run answers one command line and returns the exit code. The first SIGINT or
// SIGTERM cancels, so that linger tells what it has; the second one kills.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	// A reader that left, as in linger | head -1, is an error of write(2) instead of
	// the end of the process: the exit code still tells what was found.
	signal.Ignore(syscall.SIGPIPE)
	return cli.Run(ctx, args, cli.Streams{In: stdin, Out: stdout, Err: stderr, Getenv: os.Getenv})
}
