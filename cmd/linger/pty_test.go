package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// tty is a terminal of 100 columns and 40 rows (pty(7)), with a program at it.
type tty struct {
	t      *testing.T
	master *os.File
	linger *exec.Cmd

	mu   sync.Mutex // guards seen
	seen strings.Builder
}

// atTerminal starts linger at a terminal of its own.
func atTerminal(t *testing.T, args ...string) *tty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: 100, Row: 40}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	s := &tty{t: t, master: master, linger: exec.CommandContext(t.Context(), "linger", args...)}
	s.linger.Stdin, s.linger.Stdout, s.linger.Stderr = slave, slave, slave
	s.linger.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C.UTF-8", "NO_COLOR=")
	s.linger.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.linger.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			s.mu.Lock()
			s.seen.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return // EIO: the program has left
			}
		}
	}()
	return s
}

// text is all that was written so far.
func (s *tty) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// await waits for text that matches.
func (s *tty) await(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); !re.MatchString(s.text()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("no %s on the terminal, but:\n%q", pattern, s.text())
		}
	}
}

// control is a sequence of ECMA-48: CUU, ED, SGR.
var control = regexp.MustCompile("^\x1b\\[([0-9;]*)([A-Za-z])")

// screen is what a person sees, of lines that do not wrap.
func (s *tty) screen() []string {
	lines, row, column := [][]rune{{}}, 0, 0
	for text := s.text(); text != ""; {
		if c := control.FindStringSubmatch(text); c != nil {
			text = text[len(c[0]):]
			switch c[2] {
			case "A":
				up, _ := strconv.Atoi(c[1])
				row = max(0, row-up)
			case "J":
				lines = lines[:row+1]
				lines[row] = lines[row][:min(column, len(lines[row]))]
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch r {
		case '\r':
			column = 0
		case '\n':
			if row++; row == len(lines) {
				lines = append(lines, nil)
			}
		default:
			for len(lines[row]) <= column {
				lines[row] = append(lines[row], ' ')
			}
			lines[row][column] = r
			column++
		}
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = string(line)
	}
	return out
}

func (s *tty) write(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// exitCode waits for the program's end.
func (s *tty) exitCode() int {
	_ = s.linger.Wait() // the code tells
	return s.linger.ProcessState.ExitCode()
}
