package stage_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"linger/internal/lab/stage"
)

func TestMain(m *testing.M) {
	stage.BecomeWorker()
	if _, ok := os.LookupEnv(orphanEnv); ok {
		if err := startOrphan(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}
