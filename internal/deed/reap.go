package deed

import (
	"fmt"
	"time"

	"linger/internal/tcp"
)

// Caught counts the sockets between one address here and one endpoint there, or, where
// a service is at this end, at one port here.
type Caught struct {
	Local, Remote tcp.Endpoint
	State         tcp.State
	Sockets       int
	// Owners are the processes that have them, none where the kernel has forgotten: a
	// time-wait socket has no owner any more.
	Owners []Owner
}

// Owner is a process that has sockets.
type Owner struct {
	Comm string
	PID  int
}

// String names the process for a person.
func (o Owner) String() string { return fmt.Sprintf("%s (pid %d)", o.Comm, o.PID) }

// ReapResult is what became of the sockets of a reap.
type ReapResult struct {
	ID string `json:"id"`
	// Reaped were destroyed; Gone had ended by themselves, or their four numbers were in
	// use again; Left were not tried.
	Reaped int `json:"reaped"`
	Gone   int `json:"gone"`
	Left   int `json:"left"`
	// Cause is why some were left.
	Cause string `json:"cause,omitempty"`
}

// Reap is one reap as the journal tells it.
type Reap struct {
	ID      string    `json:"id"`
	Began   time.Time `json:"began"`
	User    string    `json:"user"`
	Netns   string    `json:"netns"` // a path, empty for that of linger
	Sockets int       `json:"sockets"`
	// Result is nil where the process ended before it could say.
	Result *ReapResult `json:"result"`
}
