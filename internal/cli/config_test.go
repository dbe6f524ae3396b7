package cli

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"linger/internal/diagnose"
)

const (
	ports = "port-exhaustion.warning-percent"
	leak  = "close-wait-leak.sockets"
)

func TestThresholdsAreDefaultsThenFileThenFlags(t *testing.T) {
	file := write(t, "thresholds:\n  "+ports+": 70.5\n  close-wait-leak:\n    sockets: 50\n")
	o := thresholdOptions{config: file, set: []string{leak + "=25"}}
	got, err := o.load()
	if err != nil {
		t.Fatal(err)
	}
	defaults := diagnose.DefaultThresholds()
	for name, want := range map[string]float64{
		ports: 70.5, leak: 25, "tw-reuse.warning-percent": value(t, defaults, "tw-reuse.warning-percent"),
	} {
		if have := value(t, got, name); have != want {
			t.Errorf("%s is %v, want %v", name, have, want)
		}
	}
}

func TestServicesOfTheFile(t *testing.T) {
	o := thresholdOptions{config: write(t, "services:\n  - 8080\n  - \"10.0.0.1:443\"\n")}
	if _, err := o.load(); err != nil {
		t.Fatal(err)
	}
	got, err := parseServices(o.services)
	if err != nil || len(got) != 2 || got[0].String() != "*:8080" || got[1].String() != "10.0.0.1:443" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestThresholdErrorsNameWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		yaml string // no file if empty
		flag string // no flag if empty
		want []string
	}{
		{"unknown key", "threshold:\n  a: 1\n", "", []string{`unknown key "threshold.a"`, "thresholds"}},
		{"unknown threshold", "thresholds:\n  port-exhaustion:\n    warn: 1\n", "", []string{"port-exhaustion.warn", ports}},
		{"no number", "thresholds:\n  " + ports + ": much\n", "", []string{ports, "much", "no number"}},
		{"list", "thresholds: [1, 2]\n", "", []string{`unknown key "thresholds"`}},
		{"services as one", "services: 8080\n", "", []string{"services is no list"}},
		{"no YAML", "a: [\n", "", []string{"YAML"}},
		{"flag without value", "", ports, []string{"want NAME=VALUE"}},
		{"flag without number", "", ports + "=much", []string{"much", "no number"}},
		{"unknown flag name", "", "ports=3", []string{`"ports"`, ports}},
		{"flag out of bounds", "", ports + "=-1", []string{ports, "-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o thresholdOptions
			if c.yaml != "" {
				o.config = write(t, c.yaml)
			}
			if c.flag != "" {
				o.set = []string{c.flag}
			}
			_, err := o.load()
			if err == nil {
				t.Fatal("no error")
			}
			if codeOf(err) != exitUsage {
				t.Errorf("gives exit code %d, want %d", codeOf(err), exitUsage)
			}
			var text strings.Builder
			complain(&text, err)
			for _, want := range c.want {
				if !strings.Contains(text.String(), want) {
					t.Errorf("the error lacks %q: %s", want, text.String())
				}
			}
			if n := strings.Count(text.String(), "\n"); n != 1 {
				t.Errorf("the error has %d lines: %s", n, text.String())
			}
		})
	}
}

func TestConfigThatSetsNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "thresholds:\n", "thresholds:\n  # " + ports + ": 70\n"} {
		o := thresholdOptions{config: write(t, text)}
		got, err := o.load()
		if err != nil || !reflect.DeepEqual(got, diagnose.DefaultThresholds()) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestConfigThatCannotBeRead(t *testing.T) {
	o := thresholdOptions{config: filepath.Join(t.TempDir(), "none.yaml")}
	if _, err := o.load(); codeOf(err) != exitUsage || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseThreshold(f *testing.F) {
	for _, seed := range []string{"a=1", "a=", "=1", "a=b=1", "a=1e400", "a=NaN", "a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, v, err := parseThreshold(text)
		if err != nil {
			return
		}
		if name == "" || !strings.HasPrefix(text, name+"=") {
			t.Fatalf("parseThreshold(%q) gives the name %q", text, name)
		}
		thresholds := diagnose.DefaultThresholds()
		if err := thresholds.Set(name, v); err == nil && (math.IsNaN(v) || v <= 0) {
			t.Fatalf("%q was accepted", text)
		}
	})
}

// FuzzConfig: whatever a file holds, it is read or refused as a wrong usage.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("thresholds:\n  " + ports + ": 70\n"))
	f.Add([]byte("thresholds:\n  close-wait-leak:\n    sockets: 50\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [1]\n: 2"))
	f.Add([]byte("1: 2"))
	path := filepath.Join(f.TempDir(), "fuzz.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		thresholds := diagnose.DefaultThresholds()
		o := thresholdOptions{config: path}
		if err := o.loadFile(&thresholds); err != nil && codeOf(err) != exitUsage {
			t.Fatalf("%q gives exit code %d: %v", data, codeOf(err), err)
		}
	})
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linger.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func value(t *testing.T, thresholds diagnose.Thresholds, name string) float64 {
	t.Helper()
	table := diagnose.ThresholdTable()
	at := slices.IndexFunc(table, func(x diagnose.Threshold) bool { return x.Name == name })
	if at < 0 {
		t.Fatalf("no threshold %s", name)
	}
	return thresholds.Of(table[at])
}
