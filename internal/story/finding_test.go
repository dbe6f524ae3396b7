package story

import (
	"strings"
	"testing"

	"linger/internal/snapshot"
)

// TestOtherEnd: a namespace that is named after a process does not name it twice.
func TestOtherEnd(t *testing.T) {
	client := snapshot.Owner{Process: "client", PID: 7, How: snapshot.Inferred}
	server := snapshot.Owner{Process: "server", PID: 8, How: snapshot.Listening}
	for _, c := range []struct {
		netns  string
		owners []snapshot.Owner
		want   string
	}{
		{"netns db", nil, "netns db"},
		{"netns db", []snapshot.Owner{server, client}, "server (pid 8) and 1 other in netns db"},
		{"netns shop", []snapshot.Owner{client}, "client (pid 7) in netns shop, inferred"},
		{"process client (pid 7)", []snapshot.Owner{client}, "client (pid 7), inferred"},
	} {
		got := strings.ReplaceAll(otherEnd(&snapshot.Peer{Netns: c.netns, Owners: c.owners}), string(NoBreak), " ")
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
