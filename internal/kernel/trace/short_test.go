package trace

import (
	"strconv"
	"testing"

	"linger/internal/tcp"
)

// pythonForks starts processes, 32 at a time, that open some connections each and end at once: a
// quarter each close them, exit, are killed, or reset them.
const pythonForks = `
import os, signal, socket, struct, sys
processes, each = int(sys.argv[1]), int(sys.argv[2])

def child(how):
    with open("/proc/self/comm", "w") as f:
        f.write("short-" + how)
    open_ones = [socket.socket() for _ in range(each)]
    for c in open_ones:
        c.connect(("127.0.0.1", 8000))  # create_connection would load what resolves names in each child
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "resets":
        for c in open_ones:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how != "exits":
        for c in open_ones:
            c.close()
    os._exit(0)

running = 0
for i in range(processes):
    if running == 32:
        os.wait()
        running -= 1
    if os.fork() == 0:
        child(["closes", "exits", "killed", "resets"][i % 4])
    running += 1
while running:
    os.wait()
    running -= 1
`

// TestShortProcesses: what thousands of processes do that are gone a moment later is counted to the
// last connection, under their names and in their cgroup.
func TestShortProcesses(t *testing.T) {
	const processes, each = 2000, 3
	const n = processes / 4 * each // by those that end in one way
	ns, id := newNamespace(t)
	cgroup, number := newCgroup(t)
	tr := follow(t, Options{Netns: []Netns{id}})
	server := peer{Listen: "127.0.0.1:8000", Count: 4 * n, Do: "wait"}.start(t, ns, "", "the-server")
	server.says(t, "ready")
	start(t, ns, cgroup, "the-parent", program(t, "/usr/bin/python3"), nil,
		"-c", pythonForks, strconv.Itoa(processes), strconv.Itoa(each)).ends(t)
	server.ends(t)
	closes := tally{"opened": n, "closed-here": n, "handed-over": n}
	found := eventually(t, tr, id, map[who]tally{
		{"the-server", tcp.Acceptor}:    {"opened": 4 * n, "closed-there": 3 * n, "reset-there": n, "resets-received": n},
		{"short-closes", tcp.Connector}: closes,
		{"short-exits", tcp.Connector}:  closes,
		{"short-killed", tcp.Connector}: closes,
		{"short-resets", tcp.Connector}: {"opened": n, "aborted-here": n},
	})
	for who, g := range found {
		if who.role == tcp.Connector && g.Cgroup != number {
			t.Errorf("%s is in cgroup %d, want %d", who.process, g.Cgroup, number)
		}
	}
}
