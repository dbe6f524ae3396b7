package change

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/deed"
	"linger/internal/journal"
)

// WatchCommand is the hidden command of linger that a watcher runs:
//
//	linger watch --state-dir DIR ID
const WatchCommand = "watch"

const (
	// tick is how often a watcher looks at the journal, the guard and the clock. It
	// sleeps by CLOCK_MONOTONIC, which stands still in suspend, so that this is also how
	// late it may be after one.
	tick = time.Second
	// startPatience is how long a watcher may take to live.
	startPatience = 15 * time.Second
	// retryFor is for how long a watcher tries to write back what it cannot.
	retryFor = 10 * time.Minute
)

// installWatcher copies the running program into the state directory: the one under
// go run is gone when its caller is, and an upgrade replaces another.
func installWatcher(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("copy the watcher: %w", err)
	}
	defer self.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, self); err != nil {
		return "", fmt.Errorf("copy the watcher: %w", err)
	}
	path, err := filepath.Abs(filepath.Join(dir, "program-"+hex.EncodeToString(sum.Sum(nil))[:16], "linger"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil // it got its name when it was whole
	}
	if _, err := self.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("copy the watcher: %w", err)
	}
	if err := copyProgram(self, path); err != nil {
		return "", fmt.Errorf("copy the watcher: %w", err)
	}
	return path, nil
}

func copyProgram(from io.Reader, path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".linger-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Chmod(0o700), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// removeOldWatchers takes the copies of earlier programs away where no change is pending
// that may need one. What cannot be removed takes room, and no harm.
func removeOldWatchers(j *journal.Journal, program string) {
	entries, err := entriesOf(j.Records())
	if err != nil || slices.ContainsFunc(entries, func(e *Entry) bool { return !e.Settled() }) {
		return
	}
	copies, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(program)), "program-*")) // the pattern is well formed
	for _, c := range copies {
		if c != filepath.Dir(program) {
			_ = os.RemoveAll(c)
		}
	}
}

// The paths of systemd, as sd_booted(3) tells it; changed by tests alone.
var (
	systemdBooted = "/run/systemd/system"
	systemdRun    = "systemd-run"
	systemctl     = "systemctl"
)

// startWatcher starts a process that outlives this one, and returns when it lives. It
// is a service of systemd where that runs, for a login session's end may kill what the
// session started; elsewhere a child in a session of its own.
func startWatcher(program, dir, id string, deadline time.Duration) error {
	step("before watcher")
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	arguments := []string{program, WatchCommand, "--state-dir", dir, id}
	var ended <-chan error
	if _, err := os.Stat(systemdBooted); err == nil {
		err = startServices(arguments, id, deadline)
		if err != nil {
			return fmt.Errorf("start the watcher: %w", err)
		}
	} else {
		c, err := startChild(arguments)
		if err != nil {
			return fmt.Errorf("start the watcher: %w", err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		ended = done
	}
	err = awaitWatcher(dir, id, ended)
	step("after watcher")
	return err
}

// startChild starts a process in a session of its own. The copy of the program may be
// busy for a moment: a child that was forked while it was written has it open until it
// runs a program of its own (go.dev/issue/22315).
func startChild(arguments []string) (*exec.Cmd, error) {
	for deadline := time.Now().Add(startPatience); ; time.Sleep(5 * time.Millisecond) {
		c := exec.Command(arguments[0], arguments[1:]...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		err := c.Start()
		if !errors.Is(err, unix.ETXTBSY) || time.Now().After(deadline) {
			return c, err
		}
	}
}

// startServices starts the watcher as a transient service, and a timer that looks
// again at the deadline, should the service have been killed. Their names are new with
// each start: those of a watcher before may not be gone yet.
func startServices(arguments []string, id string, deadline time.Duration) error {
	_, now, err := journal.Clock()
	if err != nil {
		return err
	}
	late := max(deadline-now, 0) + tick
	name := fmt.Sprintf("%s-%d", id, now.Milliseconds())
	stopTimer(id) // of a watcher that was killed
	for _, options := range [][]string{
		{"--unit=linger-watch-" + name, "--description=linger: takes change " + id + " back unless it is confirmed"},
		{
			"--unit=" + timerName + name, "--description=linger: looks again when change " + id + " is due",
			fmt.Sprintf("--on-active=%dms", late.Milliseconds()), "--timer-property=AccuracySec=100ms",
		},
	} {
		c := exec.Command(systemdRun, append(append([]string{"--quiet", "--collect", "--no-ask-password"}, options...), arguments...)...)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c.Args[:4], " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

const timerName = "linger-deadline-"

// stopTimer ends the timers of a change, where systemd has any.
func stopTimer(id string) {
	if _, err := os.Stat(systemdBooted); err == nil {
		_ = exec.Command(systemctl, "--quiet", "--no-ask-password", "stop", timerName+id+"-*.timer").Run() // it may be over
	}
}

// awaitWatcher waits until the watcher has its lock, or has ended.
func awaitWatcher(dir, id string, ended <-chan error) error {
	for deadline := time.Now().Add(startPatience); !isWatched(dir, id); time.Sleep(2 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("the watcher ended at once: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the watcher did not begin within %s", startPatience)
		}
	}
	return nil
}

// watchLock is the file that a watcher holds locked as long as it lives.
func watchLock(dir, id string) string { return filepath.Join(dir, "watch-"+id) }

func isWatched(dir, id string) bool {
	f, err := os.Open(watchLock(dir, id))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Watch takes a change back at its deadline, or when the guard wants it, unless it is
// confirmed. It returns when the change is settled, or at once if another watches.
func Watch(ctx context.Context, dir, id string) error {
	f, err := lockWatch(dir, id)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	step("watching")
	w := &watcher{dir: dir, id: id}
	defer w.unfollow()
	return w.run(ctx)
}

// lockWatch makes this process the watcher of a change, nil where there is another.
func lockWatch(dir, id string) (*os.File, error) {
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		f, err := os.OpenFile(watchLock(dir, id), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			// The one before may have removed it since it was opened.
			opened, err := f.Stat()
			if named, missing := os.Stat(watchLock(dir, id)); err == nil && missing == nil && os.SameFile(opened, named) {
				return f, nil
			}
		}
		f.Close()
		if time.Since(begin) > time.Second { // who asks whether one lives holds the lock for a moment
			return nil, nil
		}
	}
}

type watcher struct {
	dir, id string
	entry   *Entry
	size    int64 // of the journal when it was read
	warned  bool
	// follower is nil before the first look of the guard.
	follower *follower
}

func (w *watcher) run(ctx context.Context) error {
	var stuckUntil time.Time
	for {
		due, reason, err := w.look()
		if err == nil && due {
			err = w.settle(reason)
			if err == nil {
				return nil
			}
			if errors.Is(err, errNotYet) {
				err = nil
			}
		}
		if err == nil {
			stuckUntil = time.Time{}
		} else {
			// A value that cannot be written now may be later: the disk has room again, or
			// /proc/sys can be written.
			if stuckUntil.IsZero() {
				stuckUntil = time.Now().Add(retryFor)
			}
			if time.Now().After(stuckUntil) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.nap()):
		}
	}
}

// nap is until the deadline, and a tick at most.
func (w *watcher) nap() time.Duration {
	_, now, err := journal.Clock()
	if err != nil || w.entry == nil {
		return tick
	}
	left := time.Duration(w.entry.deadlineNS) - now
	if left <= 0 { // it is being tried again
		return tick
	}
	return min(left, tick)
}

// look reads the journal where it has grown, and tells whether something is to be done
// about the change, and why it is to be taken back, if it is.
func (w *watcher) look() (due bool, why deed.Reason, err error) {
	info, err := os.Stat(journal.Path(w.dir))
	if err == nil && (w.entry == nil || info.Size() != w.size) {
		// Of a damaged journal, what stands before the damage still counts.
		var records []journal.Record
		records, err = journal.Read(w.dir)
		e, unknown := entryOf(records, w.id)
		if unknown == nil {
			w.entry = e
		}
		if err = errors.Join(err, unknown); err == nil {
			w.size = info.Size()
		}
	}
	if e := w.entry; e != nil && e.Guard != deed.GuardOff && w.follower == nil && (e.State == deed.Applying || e.State == deed.Pending) {
		w.follower = follow(e.Plan) // from before the first value is written, where apply is at work
	}
	switch late, clockErr := w.isLate(); {
	case errors.Is(err, fs.ErrNotExist):
		return true, deed.Reason{Kind: deed.JournalGone}, nil
	case w.entry == nil:
		return false, why, err
	case clockErr != nil:
		return false, why, clockErr
	case err != nil && late:
		// The journal is damaged, so that nobody can have confirmed since.
		return true, deed.Reason{Kind: deed.Unreadable}, nil
	case err != nil:
		return false, why, err
	case w.entry.Settled():
		return true, why, nil
	case w.entry.State != deed.Pending:
		return true, deed.Reason{Kind: deed.Killed}, nil
	case late:
		return true, deed.Reason{Kind: deed.Deadline}, nil
	}
	due, why = w.guard()
	return due, why, nil
}

func (w *watcher) isLate() (bool, error) {
	if w.entry == nil {
		return false, nil
	}
	return w.entry.isLate()
}

// guard looks whether more connections fail than before.
func (w *watcher) guard() (due bool, why deed.Reason) {
	e := w.entry
	if e.State != deed.Pending || w.follower == nil {
		return false, why
	}
	sight := w.follower.see()
	_ = sight.tell(w.dir, w.id) // it is unknown then to who asks for the status
	seen := e.watched(sight)
	if !seen.Worse || e.Warning != "" || w.warned {
		return false, why
	}
	if e.Guard == deed.GuardRollback {
		return true, deed.Reason{Kind: deed.Guarded, Detail: seen.String()}
	}
	w.warned = true
	if j, err := journal.Open(w.dir); err == nil {
		defer j.Close()
		if now, err := entryOf(j.Records(), w.id); err == nil && now.State == deed.Pending {
			_ = record(j, kindWarned, w.id, sentenceDetail{seen.String()}) // a warning that is lost hinders nothing
		}
	}
	return false, why
}

// settle brings the change to its end, unless that has been decided otherwise while this
// waited for the journal. A watcher leaves only while it holds the journal: who holds it
// and sees a watcher knows that his next record will be seen.
func (w *watcher) settle(reason deed.Reason) error {
	j, err := openExisting(w.dir)
	if err != nil {
		return w.settleUnrecorded(reason, err)
	}
	defer j.Close()
	step("watcher has the journal")
	e, err := entryOf(j.Records(), w.id)
	if err != nil {
		return w.settleUnrecorded(reason, err)
	}
	late, err := e.isLate()
	if err != nil {
		return err
	}
	switch {
	case e.Settled():
	case e.State == deed.Pending && !late && reason.Kind != deed.Guarded:
		w.entry = e
		return errNotYet
	case e.State == deed.Pending && late:
		reason = deed.Reason{Kind: deed.Deadline}
		fallthrough
	default:
		if err := e.settle(j, reason, e.force); err != nil {
			return err
		}
	}
	return w.leave()
}

// unfollow ends tracing.
func (w *watcher) unfollow() {
	if w.follower != nil {
		w.follower.close()
	}
}

// leave ends what stands for this watcher.
func (w *watcher) leave() error {
	stopTimer(w.id)
	_ = os.Remove(sightingFile(w.dir, w.id)) // there is none where nothing was traced
	err := os.Remove(watchLock(w.dir, w.id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// settleUnrecorded takes the change back by what this process remembers: nobody can have
// confirmed in a journal that cannot be opened. One that is damaged may be mended until
// the deadline; one that is gone is not waited for.
func (w *watcher) settleUnrecorded(reason deed.Reason, why error) error {
	if w.entry == nil {
		return w.leave()
	}
	gone := errors.Is(why, errUnknownID)
	if late, err := w.isLate(); !gone && (err != nil || !late) {
		return why
	}
	if w.entry.Settled() || w.entry.State == deed.Confirmed {
		return w.leave()
	}
	outcomes := restore(w.entry.Plan, w.entry.force)
	text := fmt.Sprintf("change %s was taken back: %s: %v\n%+v\n", w.id, reason, why, outcomes)
	err := os.WriteFile(filepath.Join(w.dir, "unrecorded-"+w.id), []byte(text), 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the directory is gone, and who removed it wants no more files
	}
	if err = errors.Join(err, failed(outcomes)); err != nil {
		return err
	}
	return w.leave()
}

// errNotYet: the process that changes was not killed, but had not ended.
var errNotYet = errors.New("not due yet")
