package stage

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A worker reads one request a line from its standard input, in JSON, and answers
// each by one line on its standard output. It ends when its input ends, so that
// none is left behind, however its parent ends.

// workerEnv holds the name of the process that a worker shall be; a process
// without it is no worker.
const workerEnv = "LINGER_LAB_WORKER"

type operation string

const (
	opServe  operation = "serve"  // listen, and serve in the background
	opServed operation = "served" // count the connections of all services
	opChurn  operation = "churn"  // open and close connections, then answer
	opBegin  operation = "begin"  // the same in the background
	opEnd    operation = "end"    // end what opBegin began
	opHold   operation = "hold"   // open connections and leave them open
	opTalk   operation = "talk"   // exchange a byte on each held connection
	opDrop   operation = "drop"   // close each held connection
	opFlood  operation = "flood"  // send on each held connection, in the background
	opLimit  operation = "limit"  // set RLIMIT_NOFILE
	opPin    operation = "pin"    // run on one CPU
	opProbe  operation = "probe"  // count the held connections that still answer
	opAsk    operation = "ask"    // send a request on each held connection and read its answer
	opRun    operation = "run"    // start another program, which ends with the worker
)

type request struct {
	Op    operation  `json:"op"`
	Serve *ServeSpec `json:"serve,omitempty"`
	Dial  *DialSpec  `json:"dial,omitempty"`
	// Limit is the soft RLIMIT_NOFILE.
	Limit uint64 `json:"limit,omitempty"`
	CPU   int    `json:"cpu,omitempty"`
	// PatienceMS is in milliseconds.
	PatienceMS int64    `json:"patience_ms,omitempty"`
	Again      bool     `json:"again,omitempty"`
	Program    []string `json:"program,omitempty"`
	Ask        *AskSpec `json:"ask,omitempty"`
}

type reply struct {
	Error string `json:"error,omitempty"`
	// Errno is what the kernel said, 0 where the error is none of its own.
	Errno     unix.Errno       `json:"errno,omitempty"`
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	Served    Served           `json:"served"`
	Dialed    Dialed           `json:"dialed"`
}
