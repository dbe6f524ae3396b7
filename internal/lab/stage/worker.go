package stage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns"
)

// Worker is a process inside a namespace of the laboratory, with a name of
// its own, that serves and dials as it is told. Its methods may be called by
// several goroutines; they are done one after the other.
type Worker struct {
	name    string
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.ReadCloser
	stderr  bytes.Buffer
	answers *bufio.Reader

	mu     sync.Mutex
	broken error // why requests and answers no longer match
	closed bool
}

// startWorker runs the same program again. The child is in the namespace from
// its start on, since it is forked from a thread inside.
//
// There is no parent death signal: it comes when the thread that forked dies,
// which may be long before its process does (prctl(2)). The end of the standard
// input is what ends a worker.
func startWorker(ctx context.Context, inside *netns.Handle, name string) (*Worker, error) {
	// Not os.Executable: that file may have been replaced since.
	w := &Worker{name: name, command: exec.Command("/proc/self/exe")}
	w.command.Args = []string{name}
	w.command.Env = append(os.Environ(), workerEnv+"="+name)
	w.command.Stderr = &w.stderr
	var err error
	if w.stdin, err = w.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	if w.stdout, err = w.command.StdoutPipe(); err != nil {
		w.stdin.Close()
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	w.answers = bufio.NewReader(w.stdout)
	if err := inside.Do(w.command.Start); err != nil {
		w.stdin.Close()
		w.stdout.Close()
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	if _, err := w.answer(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start worker %s: %w", name, err), w.Close())
	}
	return w, nil
}

// PID is the worker's process.
func (w *Worker) PID() int { return w.command.Process.Pid }

// Serve listens and serves until the worker ends. It returns the endpoints with
// their real ports.
func (w *Worker) Serve(ctx context.Context, spec ServeSpec) ([]netip.AddrPort, error) {
	answer, err := w.call(ctx, request{Op: opServe, Serve: &spec})
	return answer.Endpoints, err
}

// Served counts the connections of all the worker's services.
func (w *Worker) Served(ctx context.Context) (Served, error) {
	answer, err := w.call(ctx, request{Op: opServed})
	return answer.Served, err
}

// AwaitServed waits until the worker's services have seen the end of n
// connections: until then their clients are in FIN_WAIT2.
func (w *Worker) AwaitServed(ctx context.Context, n int64) error {
	for {
		served, err := w.Served(ctx)
		if err != nil {
			return err
		}
		if max(served.Closed, served.Ended) >= n {
			return nil
		}
		Sleep(ctx, time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d connections have ended: %w", served.Ended, n, context.Cause(ctx))
		}
	}
}

// Churn opens and closes connections, and returns when the last is closed on this
// side. That connections could not be opened is no error.
func (w *Worker) Churn(ctx context.Context, spec DialSpec) (Dialed, error) {
	if spec.Count <= 0 {
		return Dialed{}, fmt.Errorf("worker %s: churn needs a count", w.name)
	}
	answer, err := w.call(ctx, request{Op: opChurn, Dial: &spec})
	return answer.Dialed, err
}

// Begin churns in the background until End, the worker's end, or ten minutes.
func (w *Worker) Begin(ctx context.Context, spec DialSpec) error {
	_, err := w.call(ctx, request{Op: opBegin, Dial: &spec})
	return err
}

// End ends what Begin began.
func (w *Worker) End(ctx context.Context) (Dialed, error) {
	answer, err := w.call(ctx, request{Op: opEnd})
	return answer.Dialed, err
}

// Hold opens connections and leaves them open.
func (w *Worker) Hold(ctx context.Context, spec DialSpec) (Dialed, error) {
	answer, err := w.call(ctx, request{Op: opHold, Dial: &spec})
	return answer.Dialed, err
}

// Talk sends a byte on each held connection and waits for it to come back.
func (w *Worker) Talk(ctx context.Context) error {
	_, err := w.call(ctx, request{Op: opTalk})
	return err
}

// Probe sends a byte on each held connection and counts as Opened those on which it
// comes back in time, as Failed the others.
func (w *Worker) Probe(ctx context.Context, patience time.Duration) (Dialed, error) {
	return w.count(ctx, patience, false)
}

// ProbeAgain is Probe, and tries once more on a new connection where it did not.
func (w *Worker) ProbeAgain(ctx context.Context, patience time.Duration) (Dialed, error) {
	return w.count(ctx, patience, true)
}

func (w *Worker) count(ctx context.Context, patience time.Duration, again bool) (Dialed, error) {
	answer, err := w.call(ctx, request{Op: opProbe, PatienceMS: patience.Milliseconds(), Again: again})
	return answer.Dialed, err
}

// Ask sends requests on each held connection, and counts as Opened those that were
// answered and as Failed the others.
func (w *Worker) Ask(ctx context.Context, spec AskSpec) (Dialed, error) {
	answer, err := w.call(ctx, request{Op: opAsk, Ask: &spec})
	return answer.Dialed, err
}

// run starts another program in the worker's namespace. It ends with the worker, and
// so does all that it starts.
func (w *Worker) run(ctx context.Context, program ...string) error {
	_, err := w.call(ctx, request{Op: opRun, Program: program})
	return err
}

// Drop closes each held connection.
func (w *Worker) Drop(ctx context.Context) error {
	_, err := w.call(ctx, request{Op: opDrop})
	return err
}

// Flood sends single bytes on each held connection until End.
func (w *Worker) Flood(ctx context.Context) error {
	_, err := w.call(ctx, request{Op: opFlood})
	return err
}

// LimitDescriptors sets the worker's soft RLIMIT_NOFILE, at most to the hard one.
func (w *Worker) LimitDescriptors(ctx context.Context, soft uint64) error {
	_, err := w.call(ctx, request{Op: opLimit, Limit: soft})
	return err
}

// Pin keeps the worker on the nth of the CPUs that it may use, counted round.
func (w *Worker) Pin(ctx context.Context, nth int) error {
	_, err := w.call(ctx, request{Op: opPin, CPU: nth})
	return err
}

// closePatience is how long a worker has to end by itself.
const closePatience = 10 * time.Second

// Close ends the worker and with it its sockets, and waits for that.
func (w *Worker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	w.stdin.Close()
	kill := time.AfterFunc(closePatience, func() { w.command.Process.Kill() })
	defer kill.Stop()
	if err := w.command.Wait(); err != nil {
		return fmt.Errorf("worker %s: %w: %s", w.name, err, bytes.TrimSpace(w.stderr.Bytes()))
	}
	return nil
}

func (w *Worker) call(ctx context.Context, r request) (reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return reply{}, fmt.Errorf("worker %s: %s: %w", w.name, r.Op, os.ErrClosed)
	}
	if w.broken != nil {
		return reply{}, fmt.Errorf("worker %s: %s: %w", w.name, r.Op, w.broken)
	}
	line, err := json.Marshal(r)
	if err != nil {
		return reply{}, fmt.Errorf("worker %s: %s: %w", w.name, r.Op, err)
	}
	if _, err := w.stdin.Write(append(line, '\n')); err != nil {
		w.broken = err
		return reply{}, fmt.Errorf("worker %s: %s: %w", w.name, r.Op, err)
	}
	answer, err := w.answer(ctx)
	if err != nil {
		return answer, fmt.Errorf("worker %s: %s: %w", w.name, r.Op, err)
	}
	return answer, nil
}

// answer waits for one answer. After a cancelled wait the worker's next answer
// would belong to an older request, so that it is of no use any more.
func (w *Worker) answer(ctx context.Context) (reply, error) {
	pipe, ok := w.stdout.(*os.File)
	if !ok {
		return reply{}, fmt.Errorf("standard output is a %T, not a pipe", w.stdout)
	}
	stop := context.AfterFunc(ctx, func() { pipe.SetReadDeadline(time.Unix(1, 0)) })
	line, err := w.answers.ReadBytes('\n')
	stop()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		w.broken = err
		return reply{}, err
	}
	var answer reply
	if err := json.Unmarshal(line, &answer); err != nil {
		w.broken = err
		return reply{}, fmt.Errorf("read answer: %w", err)
	}
	if answer.Error != "" {
		return answer, failure{answer.Error, answer.Errno}
	}
	return answer, nil
}

// failure is an error inside a worker, with what the kernel said there.
type failure struct {
	text  string
	errno unix.Errno
}

func (f failure) Error() string { return f.text }

func (f failure) Unwrap() error {
	if f.errno == 0 {
		return nil
	}
	return f.errno
}
