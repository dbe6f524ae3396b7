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

func TestPhrases(t *testing.T) {
	for got, want := range map[string]string{
		Count(0):         "0",
		Count(999):       "999",
		Count(28231):     "28,231",
		Count(1234567):   "1,234,567",
		Count(-1234):     "-1,234",
		Rate(0.25):       "0.2",
		Rate(470.4):      "470",
		Percent(99.9):    "99 %",
		Percent(0.2):     "under 1 %",
		Percent(0):       "0 %",
		Size(512):        "512 B",
		Size(25_600_000): "24.4 MiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
