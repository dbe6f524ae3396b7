package snapshot

import "linger/internal/tcp"

// Socket is one socket of a list. A snapshot holds none: a list is told while it is
// read.
type Socket struct {
	// Netns is the label of its namespace, Inode that of the namespace's file.
	Netns string `json:"netns"`
	Inode uint64 `json:"netns_inode"`
	State string `json:"state"`
	// Role is told by listeners alone, and is empty for what is no connection.
	Role   tcp.Role     `json:"role,omitempty"`
	Local  tcp.Endpoint `json:"local"`
	Remote tcp.Endpoint `json:"remote"`
	// Owner has the socket open, the lowest process id of several; nil where no process
	// has it, as in TIME_WAIT, and where that could not be seen.
	Owner *Owner `json:"owner"`
	// Shared is how many other processes have it open.
	Shared int `json:"shared,omitempty"`
	// Timer is what runs, TimerMS the milliseconds until it is due: of a time-wait
	// socket until it is freed.
	Timer   string `json:"timer,omitempty"`
	TimerMS uint32 `json:"timer_ms,omitempty"`
	// The queues are in bytes; of a listener the connections that wait for accept, and
	// the most that may.
	ReceiveQueue uint32 `json:"receive_queue"`
	SendQueue    uint32 `json:"send_queue"`
	// Cookie names the socket until the next boot.
	Cookie uint64 `json:"cookie"`
}
