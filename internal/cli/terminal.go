package cli

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"linger/internal/render"
)

// Streams are what a command reads and writes, and its environment.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv is os.Getenv, but for tests.
	Getenv func(string) string
}

// terminal is what a stream leads to.
type terminal struct {
	is bool
	// columns and rows are its size, 0 where it is unknown.
	columns, rows int
}

// terminalOf asks the kernel whether a stream is a terminal (tcgetattr(3)) and
// how wide it is (TIOCGWINSZ of ioctl_tty(2)).
func terminalOf(stream any) terminal {
	file, ok := stream.(*os.File)
	if !ok {
		return terminal{}
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return terminal{}
	}
	t := terminal{is: true}
	if size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil {
		t.columns, t.rows = int(size.Col), int(size.Row)
	}
	return t
}

// The values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// defaultColumns is the width where there is no terminal to ask.
const defaultColumns = 80

// styleFor decides how to write text: what the flag says, then the environment
// (no-color.org, bixense.com/clicolors), then what the stream is.
func styleFor(out terminal, getenv func(string) string, color string, verbose bool) render.Style {
	return render.Style{
		Width:   columnsOf(out, getenv),
		Colour:  colourOf(out, getenv, color),
		ASCII:   !isUTF8(getenv),
		Verbose: verbose,
	}
}

func columnsOf(out terminal, getenv func(string) string) int {
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if out.columns > 0 {
		return out.columns
	}
	return defaultColumns
}

func colourOf(out terminal, getenv func(string) string, color string) bool {
	force := getenv("CLICOLOR_FORCE")
	switch {
	case color == colorAlways:
		return true
	case color == colorNever, getenv("NO_COLOR") != "":
		return false
	case force != "" && force != "0":
		return true
	case getenv("TERM") == "dumb":
		return false
	default:
		return out.is
	}
}

// canErase tells whether a line can be written anew.
func canErase(t terminal, getenv func(string) string) bool {
	return t.is && getenv("TERM") != "dumb"
}

// over leads back to the begin of what was drawn, and erases it: so many rows, or the
// whole screen where they do not fit (ECMA-48: CR, CUU, CUP, ED). The cursor may stand
// anywhere in its line: the terminal has shown what was typed meanwhile, such as ^C.
func (t terminal) over(drawn int) string {
	switch {
	case drawn == 0:
		return ""
	case t.rows > 0 && drawn >= t.rows:
		return "\x1b[H\x1b[2J"
	default:
		return fmt.Sprintf("\r\x1b[%dA\x1b[J", drawn)
	}
}

// sgr is what paints text, and takes no column.
var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// rowsOf is how many rows text takes, whose lines may be longer than the terminal is wide.
func (t terminal) rowsOf(text string) (rows int) {
	for line := range strings.Lines(sgr.ReplaceAllString(text, "")) {
		columns := utf8.RuneCountInString(strings.TrimRight(line, "\n"))
		rows++
		if t.columns > 0 && columns > t.columns {
			rows += (columns - 1) / t.columns
		}
	}
	return rows
}

// isUTF8 reads the locale as setlocale(3) does: the first of three variables
// that is not empty decides.
func isUTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(getenv(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}
