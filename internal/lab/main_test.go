package lab_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"linger/internal/lab/stage"
)

func TestMain(m *testing.M) {
	stage.BecomeWorker()
	if path, ok := os.LookupEnv(memoryEnv); ok {
		exit(collectAndReport(path))
	}
	flag.Parse()
	// The tests that build whole problems are here and not in the rooms below, since they
	// mostly wait for sockets to age, each in namespaces of its own: so they wait side by
	// side, and there may be more of them at a time than CPUs.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
