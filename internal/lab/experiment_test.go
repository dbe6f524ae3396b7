package lab_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"linger/internal/diagnose"
	"linger/internal/lab"
	"linger/internal/proof"
)

// Every experiment, in its quick form: each verdict is what its mechanism lets expect,
// and so are the numbers that are known beforehand.
func TestExperimentsComeOutAsExpected(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	wanted := os.Getenv("LINGER_LAB_ONLY") // for who works on one
	var experiments []lab.Experiment
	for _, e := range lab.Experiments() {
		if wanted == "" || strings.Contains(wanted, e.Name) {
			experiments = append(experiments, e)
		}
	}
	hostStays(t)
	proofs, err := lab.Run(context.Background(), experiments, lab.RunOptions{Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		t.Run(p.Experiment, func(t *testing.T) { checkProof(t, p) })
	}
}

// hostStays holds a test to leave the host's settings alone.
func hostStays(t *testing.T) {
	t.Helper()
	before := hostSettings(t)
	t.Cleanup(func() {
		after := hostSettings(t)
		for file, value := range before {
			if after[file] != value {
				t.Errorf("%s of the host was %q and is %q", file, value, after[file])
			}
		}
	})
}

// hostSettings are all settings below net that the host's root may write.
func hostSettings(t *testing.T) map[string]string {
	t.Helper()
	settings := map[string]string{}
	err := filepath.WalkDir("/proc/sys/net", func(file string, entry fs.DirEntry, err error) error {
		// Directories of network devices come and go.
		if err != nil || entry.IsDir() {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode()&0o200 != 0 {
			if text, err := os.ReadFile(file); err == nil {
				settings[file] = string(text)
			}
		}
		return nil
	})
	if err != nil || len(settings) < 100 {
		t.Fatalf("%d settings: %v", len(settings), err)
	}
	return settings
}

// What the kernel keeps once per host is refused, or absent in a namespace.
func TestNoHostWideKeyIsWritten(t *testing.T) {
	n := loopback(t)
	for _, key := range []string{"kernel.pid_max", "vm.swappiness", "fs.file-max", "net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net.netfilter.nf_conntrack_max"} {
		file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		before, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if err := n.Set(key, strings.TrimSpace(string(before))); err == nil {
			t.Errorf("%s was written", key)
		}
	}
}

func checkProof(t *testing.T, p proof.Proof) {
	if p.Cannot != "" {
		t.Error(p.Cannot)
		return
	}
	for _, r := range p.All() {
		if r.Cannot != "" {
			t.Errorf("%s could not run: %s", r.ID, r.Cannot)
		}
		for _, u := range r.Unexpected {
			t.Errorf("%s: %s", r.ID, u)
		}
		for _, s := range r.Spreads {
			t.Logf("%-18s %-10s %-22s %s", r.ID, r.Verdict, s.Quantity, s.Interval)
		}
	}
}

// Experiments are named once, have a base line, and each variant says what it expects.
func TestExperimentsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range lab.Experiments() {
		if seen[e.Name] {
			t.Errorf("%s is there twice", e.Name)
		}
		seen[e.Name] = true
		if e.Title == "" || e.Question == "" || len(e.Quantities) == 0 {
			t.Errorf("%s lacks a title, a question or a quantity", e.Name)
		}
		if len(e.Arms) < 2 {
			t.Errorf("%s has %d arms", e.Name, len(e.Arms))
			continue
		}
		for i, a := range e.Arms {
			if i > 0 && (a.Expect == "" || a.Kind == "" || a.How == "") {
				t.Errorf("%s: %s says not what it is, or what to expect", e.Name, a.ID)
			}
			if a.Seconds <= 0 {
				t.Errorf("%s: %s says not how long it takes", e.Name, a.ID)
			}
		}
	}
	for _, r := range diagnose.Rules() {
		if !seen[string(r.Slug)] {
			t.Errorf("no experiment measures %s", r.Slug)
		}
	}
}

func TestArmsCanBeChosen(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	var one []lab.Experiment
	for _, e := range lab.Experiments() {
		if e.Name == "bind-before-connect" {
			one = append(one, e)
		}
	}
	var last lab.Progress
	proofs, err := lab.Run(context.Background(), one, lab.RunOptions{Arms: []string{"no-port"}, Repeat: 2, Progress: func(p lab.Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if len(proofs) != 1 || len(proofs[0].Variants) != 1 || len(proofs[0].Base.Runs) != 2 || len(proofs[0].Variants[0].Runs) != 2 {
		t.Errorf("got %s", describe(proofs))
	}
	if last.Done != 4 || last.Total != 4 || last.Left != 0 {
		t.Errorf("progress ends at %+v", last)
	}
}

// A cancelled run undoes what stands and says why it ended.
func TestCancelledRun(t *testing.T) {
	t.Parallel()
	_, err := lab.NewLoopback("probe")
	skipWithoutRoot(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = lab.Run(ctx, lab.Experiments(), lab.RunOptions{Quick: true, Progress: func(lab.Progress) { cancel() }})
	if err == nil {
		t.Error("a cancelled run says that it is whole")
	}
}
