package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backgroundLimit bounds a churn that nobody ends.
const backgroundLimit = 10 * time.Minute

// BecomeWorker makes this process a worker if it was started as one, and does not
// return then. Otherwise it returns at once. Every program that starts workers
// calls it first in main, since a worker is the same program started again.
func BecomeWorker() {
	name, ok := os.LookupEnv(workerEnv)
	if !ok {
		return
	}
	if err := runWorker(name, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "worker %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runWorker(name string, in io.Reader, out io.Writer) error {
	// This names the main thread, and so the process in /proc/PID/comm;
	// prctl(PR_SET_NAME) would name whichever thread this goroutine is on.
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		return fmt.Errorf("set its name: %w", err)
	}
	w := &duties{}
	answers := json.NewEncoder(out)
	if err := answers.Encode(reply{}); err != nil { // it is ready
		return err
	}
	lines := make(chan []byte)
	go func() {
		scanner := bufio.NewScanner(in)
		scanner.Buffer(nil, 64<<20)
		for scanner.Scan() {
			lines <- append([]byte(nil), scanner.Bytes()...)
		}
		// The parent has gone, or wants this process to: even in the middle of a
		// request.
		os.Exit(0)
	}()
	for line := range lines {
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		answer, err := w.do(r)
		if err != nil {
			answer.Error = err.Error()
			errors.As(err, &answer.Errno)
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// run starts a program that ends with this process, and with it all that it starts:
// it is the first process of a PID namespace (pid_namespaces(7)), and is killed when
// the thread that forked it ends, which is one that does nothing else.
func (w *duties) run(argv []string) error {
	if len(argv) == 0 {
		return errors.New("run: no program")
	}
	program := exec.Command(argv[0], argv[1:]...)
	program.Stdout, program.Stderr = os.Stderr, os.Stderr
	program.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := program.Start()
		started <- err
		if err == nil {
			if err := program.Wait(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", argv[0], err)
			}
		}
	}()
	return <-started
}

type duties struct {
	servers []*server
	holders []*dialer

	end   context.CancelFunc // of the churn in the background
	ended chan Dialed
}

func (w *duties) do(r request) (reply, error) {
	switch r.Op {
	case opServe:
		return w.serve(r.Serve)
	case opServed:
		var sum Served
		for _, s := range w.servers {
			one := s.served()
			sum.Accepted += one.Accepted
			sum.Closed += one.Closed
			sum.Ended += one.Ended
			sum.Bytes += one.Bytes
			sum.Reset += one.Reset
		}
		return reply{Served: sum}, nil
	case opChurn:
		d, err := newDialer(r.Dial)
		if err != nil {
			return reply{}, err
		}
		return reply{Dialed: d.churn(context.Background())}, nil
	case opBegin:
		return reply{}, w.begin(r.Dial)
	case opEnd:
		if w.end == nil {
			return reply{}, errors.New("no churn in the background")
		}
		w.end()
		w.end = nil
		return reply{Dialed: <-w.ended}, nil
	case opHold:
		d, err := newDialer(r.Dial)
		if err != nil {
			return reply{}, err
		}
		w.holders = append(w.holders, d)
		return reply{Dialed: d.hold(context.Background())}, nil
	case opTalk:
		for _, d := range w.holders {
			if err := d.talk(); err != nil {
				return reply{}, err
			}
		}
		return reply{}, nil
	case opProbe:
		var sum Dialed
		for _, d := range w.holders {
			alive, dead := d.probe(time.Duration(r.PatienceMS)*time.Millisecond, r.Again)
			sum.Opened += alive
			sum.Failed += dead
		}
		return reply{Dialed: sum}, nil
	case opAsk:
		if r.Ask == nil {
			return reply{}, errors.New("ask: nothing to ask")
		}
		var sum Dialed
		for _, d := range w.holders {
			answered, failed := d.ask(*r.Ask)
			sum.Opened += answered
			sum.Failed += failed
		}
		return reply{Dialed: sum}, nil
	case opRun:
		return reply{}, w.run(r.Program)
	case opDrop:
		for _, d := range w.holders {
			d.closeAll()
		}
		return reply{}, nil
	case opFlood:
		return reply{}, w.flood()
	case opLimit:
		return reply{}, limitDescriptors(r.Limit)
	case opPin:
		return reply{}, pin(r.CPU)
	}
	return reply{}, fmt.Errorf("unknown operation %q", r.Op)
}

func (w *duties) serve(spec *ServeSpec) (reply, error) {
	if spec == nil {
		return reply{}, errors.New("serve: no endpoints")
	}
	s, endpoints, err := listen(*spec)
	if err != nil {
		return reply{}, err
	}
	w.servers = append(w.servers, s)
	go func() {
		runtime.LockOSThread()
		if err := s.run(); err != nil {
			fmt.Fprintf(os.Stderr, "serve: %v\n", err)
			os.Exit(1)
		}
	}()
	return reply{Endpoints: endpoints}, nil
}

func (w *duties) begin(spec *DialSpec) error {
	if w.end != nil {
		return errors.New("a churn is in the background already")
	}
	d, err := newDialer(spec)
	if err != nil {
		return err
	}
	if d.spec.Count == 0 && d.spec.Rate <= 0 {
		return errors.New("a churn in the background needs a count or a rate")
	}
	ctx, end := context.WithTimeout(context.Background(), backgroundLimit)
	w.end = end
	w.ended = make(chan Dialed, 1)
	go func() { w.ended <- d.churn(ctx) }()
	return nil
}

func (w *duties) flood() error {
	if w.end != nil {
		return errors.New("something is in the background already")
	}
	ctx, end := context.WithTimeout(context.Background(), backgroundLimit)
	w.end = end
	w.ended = make(chan Dialed, 1)
	go func() {
		var sum Dialed
		for _, d := range w.holders {
			sum = d.flood(ctx)
		}
		w.ended <- sum
	}()
	return nil
}

func limitDescriptors(soft uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	limit.Cur = min(soft, limit.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("set RLIMIT_NOFILE: %w", err)
	}
	return nil
}

// pin moves every thread of the process to the nth of the CPUs that it may use;
// threads that come later are made by one of them.
func pin(nth int) error {
	cpu, err := nthCPU(nth)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return fmt.Errorf("pin to CPU %d: thread %q: %w", cpu, task.Name(), err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	return nil
}

func nthCPU(nth int) (int, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, fmt.Errorf("read CPU affinity: %w", err)
	}
	left := nth % allowed.Count()
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			if left == 0 {
				return cpu, nil
			}
			left--
		}
	}
	return 0, errors.New("no CPU is allowed")
}
