package sockdiag

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// answer is an NLMSG_ERROR.
func answer(code int32) []byte {
	body := make([]byte, 4+unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(body, uint32(code))
	return message(unix.NLMSG_ERROR, body)
}

// What this kernel cannot be made to answer: that of a kernel that destroys nothing.
func TestAnswersToDestroy(t *testing.T) {
	all := append(append(answer(-int32(unix.EPERM)), answer(-int32(unix.ENOENT))...), answer(0)...)
	a, err := readAnswers(all)
	if err != nil || a.gone != 1 || a.failed != 1 || a.last != 1 || !errors.Is(a.failure, unix.EPERM) {
		t.Errorf("%+v, %v", a, err)
	}
	if a, _ := readAnswers(answer(-int32(unix.EOPNOTSUPP))); !errors.Is(a.failure, ErrCannotDestroy) {
		t.Errorf("EOPNOTSUPP is %v", a.failure)
	}
	if _, err := readAnswers(all[:len(all)-1]); !errors.Is(err, errCut) {
		t.Errorf("a cut answer is %v", err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(answer(0))
	f.Add(answer(-int32(unix.EPERM)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _ := readAnswers(b)
		if (a.failed > 0) != (a.failure != nil) {
			t.Errorf("%+v", a)
		}
	})
}
