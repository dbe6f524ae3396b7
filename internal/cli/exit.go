package cli

import (
	"errors"
	"fmt"
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
