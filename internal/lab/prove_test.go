package lab_test

import (
	"context"
	"strings"
	"testing"

	"linger/internal/lab"
	"linger/internal/proof"
)

// What a plan's change does is measured, beside what stands at its place: it works, does
// nothing where another key stands in the way, or harms.
func TestChangesAreProved(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	type beside = map[string]string
	const reuse, finTimeout = "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_fin_timeout"
	cases := []struct {
		change lab.Change
		want   proof.Verdict
	}{
		{lab.Change{Key: "net.ipv4.ip_local_port_range", Old: "32768 60999", New: "1024 65535"}, proof.Works},
		{lab.Change{Key: "net.ipv4.ip_local_port_range", Old: "32768 60999", New: "40000 49999"}, proof.Harmful},
		{lab.Change{Key: "net.ipv4.ip_local_reserved_ports", Old: "", New: "8080,9090", Beside: beside{"net.ipv4.ip_local_port_range": "1024 65535"}}, proof.Works},
		{lab.Change{Key: reuse, Old: "0", New: "1"}, proof.Works},
		{lab.Change{Key: reuse, Old: "1", New: "2"}, proof.Harmful},
		{lab.Change{Key: reuse, Old: "2", New: "1", Beside: beside{"net.ipv4.tcp_tw_reuse_delay": "60000"}}, proof.NoEffect},
		{lab.Change{Key: "net.ipv4.tcp_tw_reuse_delay", Old: "60000", New: "1000", Beside: beside{reuse: "1"}}, proof.Works},
		{lab.Change{Key: "net.ipv4.tcp_timestamps", Old: "0", New: "1", Beside: beside{reuse: "1"}}, proof.Works},
		{lab.Change{Key: "net.ipv4.tcp_max_tw_buckets", Old: "65536", New: "262144"}, proof.Works},
		{lab.Change{Key: "net.ipv4.tcp_max_tw_buckets", Old: "262144", New: "5000"}, proof.Harmful},
		{lab.Change{Key: "net.core.somaxconn", Old: "128", New: "4096"}, proof.Works},
		{lab.Change{Key: "net.ipv4.tcp_rfc1337", Old: "1", New: "0"}, proof.Works},
		{lab.Change{Key: "net.ipv4.tcp_keepalive_time", Old: "7200", New: "600"}, proof.Works},
		{lab.Change{Key: "net.netfilter.nf_conntrack_tcp_timeout_established", Old: "300", New: "7200"}, proof.Works},
		{lab.Change{Key: "net.netfilter.nf_conntrack_tcp_timeout_time_wait", Old: "5", New: "120"}, proof.Works},
		{lab.Change{Key: "net.netfilter.nf_conntrack_tcp_timeout_time_wait", Old: "120", New: "10"}, proof.Works},
		{lab.Change{Key: finTimeout, Old: "70", New: "60"}, proof.Works},
		{lab.Change{Key: finTimeout, Old: "60", New: "15"}, proof.NoEffect},
	}
	var experiments []lab.Experiment
	for _, c := range cases {
		experiments = append(experiments, c.change.Prove())
	}
	hostStays(t)
	proofs, err := lab.Run(context.Background(), experiments, lab.RunOptions{Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range proofs {
		if p.Cannot != "" || p.Base.Cannot != "" || p.Variants[0].Cannot != "" || p.Variants[0].Verdict != cases[i].want {
			t.Errorf("%s: want %q: %s", p.Title, cases[i].want, describe(p))
		}
	}
}

// What cannot be proved here says why, in a word that a person understands.
func TestChangesThatCannotBeProved(t *testing.T) {
	for _, c := range []struct {
		change lab.Change
		why    string
	}{
		{lab.Change{Key: "net.netfilter.nf_conntrack_max", Old: "65536", New: "262144", HostWide: true}, "cannot build here: the kernel keeps net.netfilter.nf_conntrack_max once for the whole host"},
		{lab.Change{Key: "net.ipv4.tcp_syncookies", Old: "0", New: "1"}, "no experiment shows what net.ipv4.tcp_syncookies does"},
		{lab.Change{Key: "net.ipv4.ip_local_port_range", Old: "40000 49999", New: "50000 59999"}, "both ranges leave 10000 ports"},
		{lab.Change{Key: "net.ipv4.tcp_keepalive_time", Old: "7200", New: "7100"}, "too near to each other"},
		{lab.Change{Key: "net.ipv4.tcp_fin_timeout", Old: "300", New: "60"}, "longer than a run may take"},
		{lab.Change{Key: "net.core.somaxconn", Old: "20000", New: "30000"}, "more than the laboratory queues"},
	} {
		if e := c.change.Prove(); !strings.Contains(e.Cannot, c.why) || len(e.Arms) > 0 {
			t.Errorf("%s: %q with %d arms, want %q and none", e.Title, e.Cannot, len(e.Arms), c.why)
		}
	}
}
