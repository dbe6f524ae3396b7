package deed

import (
	"fmt"
	"slices"
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
	// Inferred: the owners are those seen with such connections, for the kernel has
	// forgotten who made these sockets.
	Inferred bool
}

// AtPort tells whether they are at one port here, with many at the other end.
func (c *Caught) AtPort() bool { return c.Local.Port != 0 }

// Owner is a process that has sockets.
type Owner struct {
	Comm string
	PID  int
}

// String names the process for a person.
func (o Owner) String() string { return fmt.Sprintf("%s (pid %d)", o.Comm, o.PID) }

// Reaping is what linger reap found, and what became of it.
type Reaping struct {
	Netns  string // as it was named, empty for that of linger
	States []tcp.State
	// Matched are the sockets that the selection holds for, Sockets those of them that are
	// to go.
	Matched, Sockets int
	Groups           []Caught
	Result           *ReapResult // nil where nothing was done
}

// Where names the namespace for a person.
func (r *Reaping) Where() string {
	if r.Netns == "" {
		return "linger's own namespace"
	}
	return "namespace " + r.Netns
}

// hazards are what each state's end may do.
var hazards = []struct {
	state tcp.State
	text  string
}{
	{tcp.TimeWait, "Without TIME_WAIT a late segment of the old connection may enter or end a new one with the same four numbers " +
		"(RFC 1337), and a peer whose FIN was lost is answered by a reset. Nothing is sent now."},
	{tcp.FinWait2, "The peer has not closed: what it still sends is answered by a reset."},
	{tcp.CloseWait, "The peer gets a reset, and what was not sent yet is lost. The program keeps its descriptors: the leak stays."},
	{tcp.Established, "Both programs lose the connection: ECONNABORTED here, ECONNRESET there, and what is on the way is lost."},
}

// Hazards are what the end of sockets in these states may do, a sentence or two each.
func (r *Reaping) Hazards() (texts []string) {
	for _, h := range hazards {
		if slices.Contains(r.States, h.state) {
			texts = append(texts, h.text)
		}
	}
	return texts
}

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
