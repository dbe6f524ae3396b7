package lab_test

import (
	"testing"

	"go.uber.org/goleak"

	"linger/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Worker()
	goleak.VerifyTestMain(m)
}
