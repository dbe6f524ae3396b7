package conntrack

import (
	"net"
	"os"
	"strings"
	"testing"

	"linger/internal/kernel/netns/netnstest"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestReadIsOfTheThreadsNamespace(t *testing.T) {
	if _, err := os.Stat("/proc" + settings + "/nf_conntrack_count"); err != nil {
		t.Skip("this kernel tracks no connections")
	}
	var cannot error
	netnstest.Do(t, netnstest.New(t), func() {
		empty, err := Read()
		if err != nil || empty == nil {
			t.Errorf("read %v, %v", empty, err)
			return
		}
		if empty.Count != 0 || empty.Max <= 0 {
			t.Errorf("a new table has count %d, max %d", empty.Count, empty.Max)
		}
		if len(empty.TimeoutSeconds) != len(states) || empty.TimeoutSeconds["established"] <= 0 {
			t.Errorf("time-outs are %v", empty.TimeoutSeconds)
		}
		if _, known := empty.Counters["insert_failed"]; !known {
			t.Errorf("counters are %v", empty.Counters)
		}

		if err := os.WriteFile("/proc"+settings+"/nf_conntrack_tcp_timeout_time_wait", []byte("77"), 0); err != nil {
			t.Error(err)
		}
		for port := range uint16(3) {
			if cannot = track(40000 + port); cannot != nil {
				return
			}
		}
		full, err := Read()
		if err != nil || full == nil {
			t.Errorf("read %v, %v", full, err)
			return
		}
		if full.Count != 3 || full.TimeoutSeconds["time_wait"] != 77 {
			t.Errorf("three entries were made and a time-out of 77 s was set; read %d and %d", full.Count, full.TimeoutSeconds["time_wait"])
		}
	})
	if cannot != nil {
		t.Skipf("needs ctnetlink to make an entry: %v", cannot)
	}
}

// track puts an entry into the table of the thread's namespace.
func track(port uint16) error {
	there, back := net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)
	return netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET,
		Forward:    netlink.IPTuple{SrcIP: there, DstIP: back, SrcPort: port, DstPort: 80, Protocol: unix.IPPROTO_TCP},
		Reverse:    netlink.IPTuple{SrcIP: back, DstIP: there, SrcPort: 80, DstPort: port, Protocol: unix.IPPROTO_TCP},
		TimeOut:    100,
		ProtoInfo:  &netlink.ProtoInfoTCP{State: 3},
	})
}

func TestParseCounters(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		want    map[string]uint64
		failure string
	}{
		"two processors": {
			text: "entries  clashres found insert_failed drop  expect_new\n" +
				"0000000a  00000001 00000002 000000ff 00000010  00000000\n" +
				"0000000a  00000001 00000000 00000001 00000000  00000000\n",
			want: map[string]uint64{"clashres": 2, "found": 2, "insert_failed": 256, "drop": 16, "expect_new": 0},
		},
		"no processor":       {text: "entries found\n", want: map[string]uint64{}},
		"nothing":            {failure: "no names"},
		"too few values":     {text: "entries found\n00000001\n", failure: "1 values for 2 names"},
		"no hexadecimal":     {text: "entries found\n00000001 zz\n", failure: "found"},
		"a line that is cut": {text: "entries found drop\n00000001 00000001 00000001\n0000", failure: "1 values for 3 names"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCounters([]byte(c.text))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if c.failure == "" && err != nil || c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
				t.Errorf("the error is %v, and should say %q", err, c.failure)
			}
		})
	}
}

func FuzzParseCounters(f *testing.F) {
	if text, err := os.ReadFile("/proc" + statistics); err == nil {
		f.Add(text)
	}
	f.Add([]byte("entries found\n0000000a ffffffff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		counters, err := ParseCounters(text)
		if err != nil && counters != nil {
			t.Errorf("%q gave both %v and %v", text, counters, err)
		}
		if _, known := counters["entries"]; known {
			t.Error("entries was summed")
		}
	})
}
