package stage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"linger/internal/kernel/netns"
)

// inUserNamespace marks the process that already is the root of a user namespace.
const inUserNamespace = "LINGER_LAB_USER_NAMESPACE"

// errDenied means that no network namespace can be made here.
var errDenied = errors.New("this system lets nobody but root make a network namespace")

// Privileged tells whether this process can make network namespaces.
func Privileged() bool {
	h, err := netns.New()
	if err != nil {
		return false
	}
	return h.Close() == nil
}

// AsRootOfUserNamespace runs this program again with the same arguments, as the root of
// a user namespace of its own (user_namespaces(7)), and returns its exit code. The
// error wraps errDenied where the system does not allow that.
func AsRootOfUserNamespace(stdout, stderr io.Writer) (int, error) {
	if os.Getenv(inUserNamespace) != "" {
		return 0, fmt.Errorf("%w, in a user namespace neither", errDenied)
	}
	again := exec.Command("/proc/self/exe")
	again.Args = os.Args
	again.Env = append(os.Environ(), inUserNamespace+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, stdout, stderr
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// It dies with the thread that forks it (prctl(2)), which is to be this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Ctrl-C reaches both; this one waits for what the other makes of it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	err := again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EINVAL):
		return 0, fmt.Errorf("%w: %w", errDenied, err)
	}
	return 0, err
}
