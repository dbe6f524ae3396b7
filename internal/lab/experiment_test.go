package lab_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"linger/internal/lab"
	"linger/internal/lab/cases"
	"linger/internal/lab/stage"
	"linger/internal/lab/stagetest"
	"linger/internal/proof"
)

// Every experiment, in its quick form: each verdict is what its mechanism lets expect,
// and so are the numbers that are known beforehand.
func TestExperimentsComeOutAsExpected(t *testing.T) {
	t.Parallel()
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	wanted := os.Getenv("LINGER_LAB_ONLY") // for who works on one
	var experiments []lab.Experiment
	for _, e := range cases.Experiments() {
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

func TestArmsCanBeChosen(t *testing.T) {
	t.Parallel()
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	var one []lab.Experiment
	for _, e := range cases.Experiments() {
		if e.Name == "bind-before-connect" {
			one = append(one, e)
		}
	}
	var last lab.Progress
	proofs, err := lab.Run(context.Background(), one, lab.RunOptions{Arms: []string{"no-port"}, Repeat: 2,
		Progress: func(p lab.Progress) { last = p }})
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
	_, err := stage.NewLoopback("probe")
	stagetest.NeedRoot(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = lab.Run(ctx, cases.Experiments(), lab.RunOptions{Quick: true, Progress: func(lab.Progress) { cancel() }})
	if err == nil {
		t.Error("a cancelled run says that it is whole")
	}
}
