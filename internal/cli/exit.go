package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"linger/internal/diagnose"
)

// The exit codes of linger are part of its public contract (docs/output.md).
const (
	// exitOK: nothing is wrong. Informative findings, problems that could not be
	// judged and gaps are no error.
	exitOK = 0
	// exitWarning and exitCritical: the gravest finding, as --fail-on counts it.
	exitWarning  = 1
	exitCritical = 2
	// exitUnread: no chosen namespace could be read.
	exitUnread = 3
	// exitFailed: a command that changes, or plans to, has failed or refused.
	exitFailed = 1
	// exitChanges: there is something to change (linger plan --detailed-exitcode).
	exitChanges = 2
	// exitUsage: the command line or the configuration file is wrong (EX_USAGE of
	// sysexits.h).
	exitUsage = 64
	// exitOutput: the answer could not be written (EX_IOERR).
	exitOutput = 74
)

// Outcome is what one exit code of a command tells.
type Outcome struct {
	Code int
	// Means goes on after the code, as in "if nothing is wrong"; "" where no words are
	// needed. It breaks the line where help does, and ends in a semicolon where it holds a
	// comma of its own.
	Means string
	// Flag is the one without which the code does not occur; "" if there is none.
	Flag string
}

// outcomesOf holds the exit codes of each command, by its name after linger's own, in the
// order in which help tells them.
var outcomesOf = map[string][]Outcome{
	"diagnose": {
		{Code: exitOK, Means: "if nothing is wrong"}, {Code: exitWarning, Means: "for a warning"},
		{Code: exitCritical, Means: "for a critical\nproblem"},
		{Code: exitUnread, Means: "if no chosen namespace could be read"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"sockets": {
		{Code: exitOK}, {Code: exitUnread, Means: "if no chosen namespace could be read"},
		{Code: exitUsage, Means: "for a wrong\ncommand line"},
	},
	"trace": {
		{Code: exitOK, Means: "if it ran to its end, or was interrupted; with a command, the exit code is the command's own"},
		{Code: exitUnread, Means: "if connections could not be followed"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"plan": {
		{Code: exitOK, Means: "if the plan was made"}, {Code: exitFailed, Means: "if it was refused or failed"},
		{Code: exitUsage, Means: "for a\nwrong command line"},
		{Code: exitChanges, Means: "if there is something to change", Flag: "--detailed-exitcode"},
	},
	"apply": {
		{Code: exitOK, Means: "if the values are written and watched"},
		{Code: exitFailed, Means: "if it was refused or\nfailed, and then nothing is changed;"},
		{Code: exitUsage, Means: "for a wrong command line"},
	},
	"confirm": {
		{Code: exitOK, Means: "if the change is confirmed"},
		{Code: exitFailed, Means: "if it was refused, as after its\ndeadline;"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"rollback": {
		{Code: exitOK, Means: "if the change is taken back"}, {Code: exitFailed, Means: "if it failed"},
		{Code: exitUsage, Means: "for a wrong\ncommand line"},
	},
	"status": {
		{Code: exitOK}, {Code: exitFailed, Means: "if it failed"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"history": {
		{Code: exitOK}, {Code: exitFailed, Means: "if the journal cannot be read"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"diff": {
		{Code: exitOK}, {Code: exitFailed, Means: "if the journal cannot be read"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"reap": {
		{Code: exitOK, Means: "if it was done"}, {Code: exitFailed, Means: "if it failed, was refused or left some"},
		{Code: exitUsage, Means: "for\na wrong command line"},
	},
	"prove": {
		{Code: exitOK, Means: "if every change works"}, {Code: exitWarning, Means: "if the verdict on one is another"},
		{Code: exitUnread, Means: "if\nsomething could not be measured"}, {Code: exitUsage, Means: "for a wrong command line or plan"},
	},
	"lab":      measuredOutcomes,
	"lab run":  measuredOutcomes,
	"lab list": toldOutcomes,
	"lab all": {
		{Code: exitOK, Means: "if all came out as expected"}, {Code: exitWarning, Means: "if a verdict or a name differs"},
		{Code: exitUnread, Means: "if\nsomething could not run"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"lab random": {
		{Code: exitOK, Means: "if all were named"}, {Code: exitWarning, Means: "if one was missed"},
		{Code: exitUnread, Means: "if something could not\nbe built"}, {Code: exitUsage, Means: "for a wrong command line"},
	},
	"explain":    toldOutcomes,
	"thresholds": toldOutcomes,
	"version":    toldOutcomes,
}

var (
	// measuredOutcomes are those of the commands that run experiments.
	measuredOutcomes = []Outcome{
		{Code: exitOK, Means: "if all came out as expected"}, {Code: exitWarning, Means: "if a verdict differs"},
		{Code: exitUnread, Means: "if\nsomething could not run"}, {Code: exitUsage, Means: "for a wrong command line"},
	}
	// toldOutcomes are those of the commands that only tell what linger knows.
	toldOutcomes = []Outcome{{Code: exitOK}, {Code: exitUsage, Means: "for a wrong command line"}}
)

// Outcomes are the exit codes of a command in their order, by its name after linger's
// own, as in "lab run"; linger alone has those of linger diagnose.
func Outcomes(name string) []Outcome {
	if name == "" {
		name = "diagnose"
	}
	all := append([]Outcome{{Code: exitOutput, Means: "if the answer could not be written"}}, outcomesOf[name]...)
	slices.SortFunc(all, func(a, b Outcome) int { return cmp.Compare(a.Code, b.Code) })
	return all
}

// ExitCodes is the sentence on the exit codes in the help of a command.
func ExitCodes(name string) string {
	text := "The exit code is"
	for i, o := range outcomesOf[name] {
		switch {
		case o.Flag != "":
			text += ". With " + o.Flag + ","
		case i > 0 && !strings.HasSuffix(text, ";"):
			text += ","
		}
		text += fmt.Sprintf(" %d", o.Code)
		if o.Means != "" {
			text += " " + o.Means
		}
	}
	return text + "."
}

// usageError is a mistake in what was asked for, with what to do about it.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: hint}
}

// outputError is a failure to write the answer.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write the answer: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// failedError is why a command that changes, or plans to, has done nothing.
type failedError struct{ err error }

func (e *failedError) Error() string { return e.err.Error() }
func (e *failedError) Unwrap() error { return e.err }

// codeOf is the exit code for an error that kept a command from its answer.
func codeOf(err error) int {
	var usage *usageError
	var output *outputError
	var failed *failedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &output):
		return exitOutput
	case errors.As(err, &failed):
		return exitFailed
	default:
		return exitUnread
	}
}

// The severities from which on --fail-on makes the exit code tell.
const (
	failOnWarning  = "warning"
	failOnCritical = "critical"
	failOnNever    = "never"
)

// codeFor is the exit code for a diagnosis.
func codeFor(findings []diagnose.Finding, failOn string) int {
	code := exitOK
	for _, f := range findings {
		switch {
		case failOn == failOnNever:
		case f.Severity == diagnose.Critical:
			code = max(code, exitCritical)
		case f.Severity == diagnose.Warning && failOn == failOnWarning:
			code = max(code, exitWarning)
		}
		code = max(code, codeFor(f.Related, failOn))
	}
	return code
}

// quietly takes a failure to write as an error, but for a reader that left.
func quietly(err error) error {
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return &outputError{err}
}
