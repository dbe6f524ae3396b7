package prove_test

import (
	"strings"
	"testing"

	"linger/internal/lab/prove"
)

// What cannot be proved here says why, in a word that a person understands.
func TestChangesThatCannotBeProved(t *testing.T) {
	for _, c := range []struct {
		proposal prove.Proposal
		why      string
	}{
		{prove.Proposal{Key: "net.netfilter.nf_conntrack_max", Old: "65536", New: "262144", HostWide: true},
			"cannot build here: the kernel keeps net.netfilter.nf_conntrack_max once for the whole host"},
		{prove.Proposal{Key: "net.ipv4.tcp_syncookies", Old: "0", New: "1"},
			"no experiment shows what net.ipv4.tcp_syncookies does"},
		{prove.Proposal{Key: "net.ipv4.ip_local_port_range", Old: "40000 49999", New: "50000 59999"},
			"both ranges leave 10000 ports"},
		{prove.Proposal{Key: "net.ipv4.tcp_keepalive_time", Old: "7200", New: "7100"}, "too near to each other"},
		{prove.Proposal{Key: "net.ipv4.tcp_fin_timeout", Old: "300", New: "60"}, "longer than a run may take"},
		{prove.Proposal{Key: "net.core.somaxconn", Old: "20000", New: "30000"}, "more than the laboratory queues"},
	} {
		if e := c.proposal.Experiment(); !strings.Contains(e.Cannot, c.why) || len(e.Arms) > 0 {
			t.Errorf("%s: %q with %d arms, want %q and none", e.Title, e.Cannot, len(e.Arms), c.why)
		}
	}
}
