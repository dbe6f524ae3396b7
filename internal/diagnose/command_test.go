package diagnose

import "testing"

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    Netns
		want string
	}{
		{"own", Netns{Own: true, PID: 1}, "ss -tan"},
		{"whole host", Netns{}, "ss -tan"},
		{"named", Netns{Path: "/run/netns/blue", PID: 9}, "ip netns exec blue ss -tan"},
		{"named with a space", Netns{Path: "/run/netns/a b"}, "ip netns exec 'a b' ss -tan"},
		{"of a process", Netns{PID: 9}, "nsenter --net=/proc/9/ns/net ss -tan"},
		{"elsewhere", Netns{Path: "/var/x's"}, `nsenter --net='/var/x'\''s' ss -tan`},
	} {
		if got := In(tt.n, "ss -tan"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
