package host

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	h, err := Read("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for path, got := range map[string]string{
		"/proc/sys/kernel/hostname":       h.Name,
		"/proc/sys/kernel/osrelease":      h.Kernel,
		"/proc/sys/kernel/random/boot_id": h.BootID,
	} {
		if want := contents(t, path); got != want {
			t.Errorf("%s says %q, read was %q", path, want, got)
		}
	}
	if h.CPUs != runtime.NumCPU() {
		t.Errorf("%d CPUs", h.CPUs)
	}
	// A gigabyte says that the unit is the byte.
	if h.Memory == nil || h.Memory.Total < 1<<28 || h.Memory.Available == 0 || h.Memory.Available > h.Memory.Total {
		t.Errorf("memory %+v", h.Memory)
	}
	if h.Load == nil || h.Load.One < 0 || h.Load.Fifteen < 0 {
		t.Errorf("load %+v", h.Load)
	}
	for _, resource := range []string{"cpu", "memory", "io"} {
		_, have := h.Pressure[resource]
		if _, err := os.ReadFile("/proc/pressure/" + resource); (err == nil) != have {
			t.Errorf("pressure of %s: %v, the file says %v", resource, have, err)
		}
	}
}

func contents(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestWithoutProcTheRestIsRead(t *testing.T) {
	h, err := Read(filepath.Join(t.TempDir(), "nowhere"))
	if h.Name == "" || h.Kernel == "" || h.CPUs == 0 {
		t.Errorf("what needs no /proc is missing: %+v", h)
	}
	if h.Memory != nil || h.Load != nil || h.Pressure != nil || h.BootID != "" {
		t.Errorf("read from nothing: %+v", h)
	}
	if err == nil || !strings.Contains(err.Error(), "boot id") || !strings.Contains(err.Error(), "memory") {
		t.Errorf("the error is %v", err)
	}
}

// The kernel cannot be made to lose one of its files, so this /proc is made of copies.
func TestEachPartFailsOnItsOwn(t *testing.T) {
	proc := t.TempDir()
	for _, name := range []string{"loadavg", "pressure/cpu"} {
		at := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "0.10 0.20 0.30 1/100 1000\n"
		if name != "loadavg" {
			text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := Read(proc)
	if h.Load == nil || *h.Load != (Load{0.10, 0.20, 0.30}) {
		t.Errorf("load %+v", h.Load)
	}
	if len(h.Pressure) != 1 || h.Pressure["cpu"] != (Pressure{Some: 1.5, Full: 0.25}) {
		t.Errorf("pressure %+v", h.Pressure)
	}
	if h.Memory != nil || err == nil || !strings.Contains(err.Error(), "read memory") || strings.Contains(err.Error(), "pressure") {
		t.Errorf("memory %+v, %v", h.Memory, err)
	}
}
