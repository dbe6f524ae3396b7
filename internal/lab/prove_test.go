package lab_test

import (
	"context"
	"testing"

	"linger/internal/lab"
	"linger/internal/lab/prove"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/proof"
)

// What a plan's change does is measured, beside what stands at its place: it works, does
// nothing where another key stands in the way, or harms.
func TestChangesAreProved(t *testing.T) {
	t.Parallel()
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	type beside = map[string]string
	const reuse, finTimeout = "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_fin_timeout"
	cases := []struct {
		proposal prove.Proposal
		want     proof.Verdict
	}{
		{prove.Proposal{Key: "net.ipv4.ip_local_port_range", Old: "32768 60999", New: "1024 65535"}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.ip_local_port_range", Old: "32768 60999", New: "40000 49999"}, proof.Harmful},
		{prove.Proposal{Key: "net.ipv4.ip_local_reserved_ports", Old: "", New: "8080,9090",
			Beside: beside{"net.ipv4.ip_local_port_range": "1024 65535"}}, proof.Works},
		{prove.Proposal{Key: reuse, Old: "0", New: "1"}, proof.Works},
		{prove.Proposal{Key: reuse, Old: "1", New: "2"}, proof.Harmful},
		{prove.Proposal{Key: reuse, Old: "2", New: "1", Beside: beside{"net.ipv4.tcp_tw_reuse_delay": "60000"}}, proof.NoEffect},
		{prove.Proposal{Key: "net.ipv4.tcp_tw_reuse_delay", Old: "60000", New: "1000", Beside: beside{reuse: "1"}}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.tcp_timestamps", Old: "0", New: "1", Beside: beside{reuse: "1"}}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.tcp_max_tw_buckets", Old: "65536", New: "262144"}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.tcp_max_tw_buckets", Old: "262144", New: "5000"}, proof.Harmful},
		{prove.Proposal{Key: "net.core.somaxconn", Old: "128", New: "4096"}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.tcp_rfc1337", Old: "1", New: "0"}, proof.Works},
		{prove.Proposal{Key: "net.ipv4.tcp_keepalive_time", Old: "7200", New: "600"}, proof.Works},
		{prove.Proposal{Key: "net.netfilter.nf_conntrack_tcp_timeout_established", Old: "300", New: "7200"}, proof.Works},
		{prove.Proposal{Key: "net.netfilter.nf_conntrack_tcp_timeout_time_wait", Old: "5", New: "120"}, proof.Works},
		{prove.Proposal{Key: "net.netfilter.nf_conntrack_tcp_timeout_time_wait", Old: "120", New: "10"}, proof.Works},
		{prove.Proposal{Key: finTimeout, Old: "70", New: "60"}, proof.Works},
		{prove.Proposal{Key: finTimeout, Old: "60", New: "15"}, proof.NoEffect},
	}
	var experiments []lab.Experiment
	for _, c := range cases {
		experiments = append(experiments, c.proposal.Experiment())
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
