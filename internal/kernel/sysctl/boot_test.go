package sysctl

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const finTimeout = "net.ipv4.tcp_fin_timeout"

// disk makes a file system. A content that begins with -> is a link.
func disk(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if err := place(root, name, text); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func place(root, name, text string) error {
	at := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if to, link := strings.CutPrefix(text, "-> "); link {
		return os.Symlink(to, at)
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

func TestBoot(t *testing.T) {
	both := []string{Systemd, Procps}
	value := func(value, file string, line int, loaders ...string) BootValue {
		return BootValue{Key: finTimeout, Value: value, File: file, Line: line, Loaders: loaders}
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  []BootValue
	}{
		"no file at all": {},
		"no file says anything about it": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_rfc1337 = 1\n"},
		},
		"one line": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "# a comment\n\n; another\n net.ipv4.tcp_fin_timeout =  30 \n"},
			want:  []BootValue{value("30", "/etc/sysctl.d/10.conf", 4, both...)},
		},
		"no end of line": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_fin_timeout=30"},
			want:  []BootValue{value("30", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"the last line of a file": {
			files: map[string]string{"/etc/sysctl.d/10.conf": finTimeout + "=30\n" + finTimeout + "=20\n"},
			want:  []BootValue{value("20", "/etc/sysctl.d/10.conf", 2, both...)},
		},
		"the last file by name, whatever its directory": {
			files: map[string]string{
				"/usr/lib/sysctl.d/50.conf": finTimeout + "=50",
				"/etc/sysctl.d/10.conf":     finTimeout + "=10",
				"/run/sysctl.d/20.conf":     finTimeout + "=20",
			},
			want: []BootValue{value("50", "/usr/lib/sysctl.d/50.conf", 1, both...)},
		},
		"the first directory for files of one name": {
			files: map[string]string{
				"/usr/lib/sysctl.d/50.conf":       finTimeout + "=1",
				"/usr/local/lib/sysctl.d/50.conf": finTimeout + "=2",
				"/run/sysctl.d/50.conf":           finTimeout + "=3",
				"/lib/sysctl.d/50.conf":           finTimeout + "=4",
			},
			want: []BootValue{value("3", "/run/sysctl.d/50.conf", 1, both...)},
		},
		"a link to /dev/null masks": {
			files: map[string]string{
				"/usr/lib/sysctl.d/50.conf": finTimeout + "=50",
				"/etc/sysctl.d/50.conf":     "-> /dev/null",
			},
		},
		"an empty file masks": {
			files: map[string]string{
				"/usr/lib/sysctl.d/50.conf": finTimeout + "=50",
				"/etc/sysctl.d/50.conf":     "",
			},
		},
		"only names that end in .conf": {
			files: map[string]string{"/etc/sysctl.d/50.conf.dpkg-old": finTimeout + "=50", "/etc/sysctl.d/README": finTimeout + "=50"},
		},
		"sysctl.conf is read by procps alone": {
			files: map[string]string{"/etc/sysctl.conf": finTimeout + "=5"},
			want:  []BootValue{value("5", "/etc/sysctl.conf", 1, Procps)},
		},
		"sysctl.conf comes last": {
			files: map[string]string{"/etc/sysctl.conf": finTimeout + "=5", "/etc/sysctl.d/zz.conf": finTimeout + "=9"},
			want:  []BootValue{value("9", "/etc/sysctl.d/zz.conf", 1, Systemd), value("5", "/etc/sysctl.conf", 1, Procps)},
		},
		"a link leads systemd to sysctl.conf": {
			files: map[string]string{"/etc/sysctl.conf": "\n" + finTimeout + "=5", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf"},
			want:  []BootValue{value("5", "/etc/sysctl.conf", 2, both...)},
		},
		"absolute links stay below the root": {
			files: map[string]string{
				"/etc/sysctl.d":           "-> /srv/settings",
				"/srv/settings/10.conf":   "-> /srv/store/ten",
				"/srv/store/ten":          finTimeout + "=5",
				"/etc/../etc/sysctl.conf": "-> /../../../../nowhere",
			},
			want: []BootValue{value("5", "/srv/store/ten", 1, both...)},
		},
		"hidden files are read by procps alone": {
			files: map[string]string{"/etc/sysctl.d/.10.conf": finTimeout + "=5"},
			want:  []BootValue{value("5", "/etc/sysctl.d/.10.conf", 1, Procps)},
		},
		"slashes": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net/ipv4/tcp_fin_timeout = 5"},
			want:  []BootValue{value("5", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"a dash ignores errors": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "-net.ipv4.tcp_fin_timeout = 5"},
			want:  []BootValue{value("5", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"a pattern": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_fin_* = 5"},
			want:  []BootValue{value("5", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"no pattern reaches over a slash": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.*fin_timeout = 5"},
		},
		"a class of a pattern": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_[!a-e]in_timeout = 5"},
			want:  []BootValue{value("5", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"a line that names the key before any pattern": {
			files: map[string]string{"/etc/sysctl.d/10.conf": finTimeout + "=9\nnet.ipv4.tcp_fin_* = 5"},
			want:  []BootValue{value("9", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"an excluded key has no pattern": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_fin_* = 5\n-" + finTimeout},
		},
		"an exclusion takes back an earlier line for systemd": {
			files: map[string]string{"/etc/sysctl.d/10.conf": finTimeout + "=9\n-" + finTimeout},
			want:  []BootValue{value("9", "/etc/sysctl.d/10.conf", 1, Procps)},
		},
		"a pattern excludes nothing": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_fin_* = 5\n-net.ipv4.*timeout"},
			want:  []BootValue{value("5", "/etc/sysctl.d/10.conf", 1, both...)},
		},
		"the last of several patterns, where systemd leaves a repeated one in its place": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_f* = 1\nnet.ipv4.*timeout = 2\nnet.ipv4.tcp_f* = 1"},
			want: []BootValue{
				value("2", "/etc/sysctl.d/10.conf", 2, Systemd),
				value("1", "/etc/sysctl.d/10.conf", 3, Procps),
			},
		},
		"what is no assignment is passed over": {
			files: map[string]string{"/etc/sysctl.d/10.conf": "net.ipv4.tcp_fin_timeout 5\n=5\n-\n" + finTimeout + " = 7"},
			want:  []BootValue{value("7", "/etc/sysctl.d/10.conf", 4, both...)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, problems := Boot(disk(t, c.files), []string{"net.ipv4.tcp_tw_reuse", finTimeout})
			if len(problems) > 0 {
				t.Error(problems)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func TestBootGoesOnAfterAFileThatCannotBeRead(t *testing.T) {
	root := disk(t, map[string]string{
		"/etc/sysctl.d/10.conf": finTimeout + "=10",
		"/etc/sysctl.d/20.conf": "-> 20.conf", // ELOOP, for root too
		"/run/sysctl.d":         "no directory",
	})
	got, problems := Boot(root, []string{finTimeout})
	if len(got) != 1 || got[0].Value != "10" {
		t.Errorf("got %v", got)
	}
	if len(problems) != 2 {
		t.Errorf("the link to itself and the file for a directory gave %v", problems)
	}
}

func TestBootDoesNotWaitForAFifo(t *testing.T) {
	root := disk(t, map[string]string{"/etc/sysctl.d/10.conf": finTimeout + "=10"})
	if err := syscall.Mkfifo(filepath.Join(root, "/etc/sysctl.d/20.conf"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, problems := Boot(root, []string{finTimeout}); len(got) != 1 || len(problems) != 0 {
		t.Errorf("got %v, %v", got, problems)
	}
}

func TestBootOfTheRunningHost(t *testing.T) {
	for _, root := range []string{"", "/"} {
		values, problems := Boot(root, slices.Concat(PerNamespace, HostWide))
		if os.Geteuid() == 0 && len(problems) > 0 {
			t.Error(problems)
		}
		for _, v := range values {
			text, err := os.ReadFile(v.File)
			if err != nil {
				t.Error(err)
				continue
			}
			if lines := strings.Split(string(text), "\n"); v.Line < 1 || v.Line > len(lines) || !strings.Contains(lines[v.Line-1], "=") {
				t.Errorf("%s:%d is no assignment", v.File, v.Line)
			}
		}
	}
	if _, problems := Boot(filepath.Join(t.TempDir(), "nowhere"), PerNamespace); len(problems) != 1 {
		t.Errorf("a root that is not there gave %v", problems)
	}
}

// Without patterns, exclusions, hidden files and sysctl.conf the two programs agree,
// and the last line of the last file by name has the last word.
func TestLoadersAgreeOnPlainFiles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.MapOfN(
			rapid.StringMatching(`[0-9]{2}-[a-z]{1,3}\.conf`),
			rapid.SliceOfN(rapid.IntRange(1, 99), 1, 3), 1, 4).Draw(rt, "files")
		root, err := os.MkdirTemp("", "boot")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(root)
		var want BootValue
		for _, name := range slices.Sorted(maps.Keys(names)) {
			file := rapid.SampledFrom(directories).Draw(rt, "directory") + "/" + name
			var text strings.Builder
			for _, v := range names[name] {
				fmt.Fprintf(&text, "%s = %d\n", finTimeout, v)
			}
			if err := place(root, file, text.String()); err != nil {
				rt.Fatal(err)
			}
			last := len(names[name])
			want = BootValue{finTimeout, fmt.Sprint(names[name][last-1]), file, last, []string{Systemd, Procps}}
		}
		got, problems := Boot(root, []string{finTimeout})
		if diff := cmp.Diff([]BootValue{want}, got); diff != "" || len(problems) > 0 {
			rt.Errorf("want -, got +\n%s%v", diff, problems)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	for _, line := range []string{
		"net.ipv4.tcp_fin_timeout = 30", "-net.ipv4.conf.*.rp_filter=2", "-net.ipv4.conf.lo.rp_filter",
		"# comment", "; comment", "net/ipv4/conf/eth0.1/forwarding=1", "=", "-", "/=/", "a[=1", "\x00=\xff",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		a, ok := parseLine(line)
		if !ok {
			return
		}
		if a.name == "" || a.exclude && a.value != "" {
			t.Errorf("%q is %+v", line, a)
		}
		if strings.TrimSpace(a.value) != a.value {
			t.Errorf("%q has a value with blanks around it: %q", line, a.value)
		}
		a.matches("net/ipv4/tcp_fin_timeout")
		if !a.isPattern() && !a.exclude {
			if got := systemdSets([]assignment{a}, a.name); got == nil || got.value != a.value {
				t.Errorf("%q does not set what it names", line)
			}
		}
	})
}
