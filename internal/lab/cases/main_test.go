package cases

import (
	"testing"

	"go.uber.org/goleak"

	"linger/internal/lab/stage"
)

func TestMain(m *testing.M) {
	stage.BecomeWorker()
	goleak.VerifyTestMain(m)
}
