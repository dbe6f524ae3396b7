package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"linger/internal/lab/stage"
)

func TestMain(m *testing.M) {
	stage.BecomeWorker() // linger lab starts its own program again
	testscript.Main(m, map[string]func(){"linger": main, "without": without})
}

// TestStories runs testdata/*.txt against the real program and this machine's own
// network namespace.
func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("LC_ALL", "C.UTF-8")
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"follows-schema": followsSchema,
			"lines-follow":   linesFollow,
			"exits":          exits,
		},
	})
}

// followsSchema FILE [NAME]: the file is JSON and follows docs/NAME.schema.json, by
// default that of a diagnosis.
func followsSchema(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: follows-schema FILE [NAME]")
	}
	name := "diagnosis"
	if len(args) == 2 {
		name = args[1]
	}
	ts.Check(follows(name, ts.ReadFile(args[0])))
}

// follows is why a document does not follow docs/NAME.schema.json, nil where it does.
func follows(name, document string) error {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/" + name + ".schema.json")
	if err != nil {
		return err
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		return err
	}
	return schema.Validate(parsed)
}

// linesFollow NAME FILE: each line of the file is JSON and follows docs/NAME.schema.json.
func linesFollow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines-follow NAME FILE")
	}
	lines := 0
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		ts.Check(follows(args[0], line))
		lines++
	}
	if lines == 0 {
		ts.Fatalf("%s has no line", args[1])
	}
}

// exits CODE ARGUMENT...: linger ends with this very exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("linger", args[1:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// patience bounds what should take a moment.
const patience = 30 * time.Second

// TestInterruptTellsWhatIsThere: SIGINT in a long window ends it at once, and the
// report says that it was cut short.
func TestInterruptTellsWhatIsThere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	linger := exec.CommandContext(ctx, "linger", "--netns", "/proc/self/ns/net", "--window", "10m", "--fail-on", "never", "-v")
	linger.Stdout, linger.Stderr = &stdout, &stderr
	if err := linger.Start(); err != nil {
		t.Fatal(err)
	}
	if err := waitForHandlers(ctx, linger.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := linger.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := linger.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if !strings.Contains(stdout.String(), "GAPS") {
		t.Errorf("no gap says that the reading was cut short:\n%s", stdout.String())
	}
}

// waitForHandlers waits until the process ignores SIGPIPE, which it does last when
// it sets up its signals (SigIgn of proc_pid_status(5)).
func waitForHandlers(ctx context.Context, pid int) error {
	for {
		ready, err := ignores(pid, syscall.SIGPIPE)
		if ready || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func ignores(pid int, signal syscall.Signal) (bool, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if mask, found := strings.CutPrefix(lines.Text(), "SigIgn:"); found {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return bits>>(uint(signal)-1)&1 == 1, err
		}
	}
	return false, errors.New("/proc/PID/status has no SigIgn")
}

// TestAReaderThatLeaves: a pipe whose other end is closed is no error.
func TestAReaderThatLeaves(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		t.Run(output, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			read.Close()
			defer write.Close()
			var stderr bytes.Buffer
			linger := exec.CommandContext(ctx, "linger", "--netns", "/proc/self/ns/net", "--window", "0", "--fail-on", "never", "-o", output)
			linger.Stdout, linger.Stderr = write, &stderr
			if err := linger.Run(); err != nil || stderr.Len() > 0 {
				t.Errorf("%v, and says %q", err, stderr.String())
			}
		})
	}
}

// TestAFullDisk: what could not be written is told, with an exit code of its own.
func TestAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	var stderr bytes.Buffer
	linger := exec.CommandContext(t.Context(), "linger", "--netns", "/proc/self/ns/net", "--window", "0")
	linger.Stdout, linger.Stderr = full, &stderr
	var exit *exec.ExitError
	if err := linger.Run(); !errors.As(err, &exit) || exit.ExitCode() != 74 {
		t.Errorf("got %v, want exit code 74", err)
	}
	if want := "linger: write the answer: write /dev/stdout: no space left on device\n"; stderr.String() != want {
		t.Errorf("says %q, want %q", stderr.String(), want)
	}
}
