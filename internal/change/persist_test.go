package change

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/kernel/sysctl"
)

const keyReuse = "net.ipv4.tcp_tw_reuse"

var reuseOn = []line{{keyReuse, "1"}, {"net.ipv4.ip_local_port_range", "20000 60999"}}

// disk makes a root. A content that begins with -> is a link.
func disk(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		at := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if to, link := strings.CutPrefix(text, "-> "); err == nil && link {
			err = os.Symlink(to, at)
		} else if err == nil {
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// roots are hosts, with the name of the file that wins there, "" where none does.
var roots = map[string]struct {
	files map[string]string
	wins  string
}{
	"no file at all":            {nil, "90-linger-7"},
	"an earlier file":           {map[string]string{"/etc/sysctl.d/10-net.conf": keyReuse + "=0\n"}, "90-linger-7"},
	"a distribution's, later":   {map[string]string{"/usr/lib/sysctl.d/95-net.conf": keyReuse + "=2\n"}, "99-linger-7"},
	"an administrator's, last":  {map[string]string{"/etc/sysctl.d/99-net.conf": keyReuse + "=0\n"}, "99-zz-linger-7"},
	"one that wants to be last": {map[string]string{"/etc/sysctl.d/zz-last.conf": keyReuse + "=0\n"}, "zz-linger-7"},
	"run":                       {map[string]string{"/run/sysctl.d/91.conf": keyReuse + "=0\n"}, "99-linger-7"},
	"a pattern, later":          {map[string]string{"/etc/sysctl.d/99-net.conf": "net.ipv4.tcp_tw_reus?=0\n"}, "90-linger-7"},
	"sysctl.conf says the same": {map[string]string{"/etc/sysctl.conf": keyReuse + "=1\n"}, "90-linger-7"},
	"sysctl.conf about other things": {map[string]string{
		"/etc/sysctl.conf": "net.ipv4.tcp_syncookies=1\n", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf",
	}, "90-linger-7"},
	"sysctl.conf": {map[string]string{"/etc/sysctl.conf": "\n" + keyReuse + "=0\n"}, ""},
	"sysctl.conf, linked": {map[string]string{
		"/etc/sysctl.conf": keyReuse + "=0\n", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf",
	}, ""},
}

func TestPlanDropIn(t *testing.T) {
	for name, c := range roots {
		t.Run(name, func(t *testing.T) {
			d, err := planDropIn(disk(t, c.files), "7", reuseOn)
			if c.wins == "" {
				var outvoted *outvotedError
				if !errors.As(err, &outvoted) || outvoted.by.File != "/etc/sysctl.conf" || !strings.Contains(err.Error(), "sed -i") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || d.Path != "/etc/sysctl.d/"+c.wins+".conf" {
				t.Errorf("%s, %v", d.Path, err)
			}
		})
	}
}

// What PlanDropIn says, the two programs do: after each of them the kernel has the
// values, in a network namespace of its own, with the files of this root alone.
func TestKeptValuesAreInForceAfterTheRealLoaders(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: no namespace can be made")
	}
	loaders := map[string][]string{sysctl.Systemd: {"/usr/lib/systemd/systemd-sysctl"}, sysctl.Procps: {"/usr/sbin/sysctl", "--system"}}
	for _, argv := range loaders {
		if _, err := os.Stat(argv[0]); err != nil {
			t.Skipf("%v: scripts/test-peers installs it", err)
		}
	}
	for name, c := range roots {
		t.Run(name, func(t *testing.T) {
			root := disk(t, c.files)
			d, err := planDropIn(root, "7", reuseOn)
			if c.wins == "" {
				if err == nil {
					t.Fatal("planned")
				}
				// What it says of the mend is true: with that line out, a file wins.
				var outvoted *outvotedError
				errors.As(err, &outvoted)
				mend := exec.Command("sed", "-i", fmt.Sprintf("%ds/^/# /", outvoted.by.Line), filepath.Join(root, outvoted.by.File))
				if out, err := mend.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				d, err = planDropIn(root, "7", reuseOn)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.write(); err != nil {
				t.Fatal(err)
			}
			for loader, argv := range loaders {
				if got := load(t, root, argv); got != "1 20000 60999" {
					t.Errorf("after %s: %q", loader, got)
				}
			}
		})
	}
}

// load runs a loader over the files of a root, in namespaces of its own, and returns
// the two values that the kernel then has there.
func load(t *testing.T, root string, argv []string) string {
	t.Helper()
	const script = `set -e
root=$1; shift
for dir in etc/sysctl.d usr/lib/sysctl.d usr/local/lib/sysctl.d run/sysctl.d; do mkdir -p "$root/$dir"; done
touch -a "$root/etc/sysctl.conf"
# The host's own files are not to be read: each directory is covered, or is not there.
mount --bind "$root/run" /run
for dir in etc/sysctl.d usr/lib/sysctl.d usr/local/lib/sysctl.d; do
	if [ -d "/$dir" ]; then mount --bind "$root/$dir" "/$dir"; fi
done
if [ -e /etc/sysctl.conf ]; then mount --bind "$root/etc/sysctl.conf" /etc/sysctl.conf; fi
"$@" >&2
cat /proc/sys/net/ipv4/tcp_tw_reuse /proc/sys/net/ipv4/ip_local_port_range`
	command := exec.Command("sh", append([]string{"-c", script, "sh", root}, argv...)...)
	command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, said.String())
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func TestDropInIsRemovedOnlyWhileItIsLingers(t *testing.T) {
	root := disk(t, nil)
	d, err := planDropIn(root, "7", reuseOn)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(); err != nil {
		t.Fatal(err)
	}
	if err := d.write(); err != nil {
		t.Errorf("again: %v", err)
	}
	file := filepath.Join(root, d.Path)
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "change 7") || !strings.Contains(string(text), "\n"+keyReuse+" = 1\n") {
		t.Errorf("%s, %v", text, err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}

	// A later change has the last word while it is there.
	later, err := planDropIn(root, "8", []line{{keyReuse, "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := later.write(); err != nil {
		t.Fatal(err)
	}
	if removed, err := later.remove(false); err != nil || !removed {
		t.Errorf("%t, %v", removed, err)
	}

	if err := os.WriteFile(file, append(text, "net.ipv4.tcp_syncookies = 1\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if removed, err := d.remove(false); removed || !errors.Is(err, errNotOurs) {
		t.Errorf("%t, %v", removed, err)
	}
	if err := d.write(); !errors.Is(err, errNotOurs) {
		t.Errorf("written over: %v", err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if removed, err := d.remove(false); err != nil || !removed {
		t.Errorf("%t, %v", removed, err)
	}
	if removed, err := d.remove(false); err != nil || removed {
		t.Errorf("%t, %v", removed, err)
	}
}

// Someone who writes a later file between plan and write is not overruled in silence.
func TestWriteLooksAgain(t *testing.T) {
	root := disk(t, nil)
	d, err := planDropIn(root, "7", reuseOn)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/sysctl.conf"), []byte(keyReuse+" = 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var outvoted *outvotedError
	if err := d.write(); !errors.As(err, &outvoted) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(root, d.Path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestManagersAreNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // "" for none
	}{
		{"nobody", map[string]string{"/etc/sysctl.d/10.conf": "# by hand\n" + keyReuse + "=0\n"}, ""},
		{"Ansible", map[string]string{
			"/etc/sysctl.d/10.conf": "# Ansible managed\n" + keyReuse + "=0\n",
		}, "Ansible seems to write /etc/sysctl.d/10.conf"},
		{"Salt", map[string]string{"/etc/sysctl.d/99-salt.conf": keyReuse + "=0\n"}, "Salt seems to write"},
		{"tuned", map[string]string{
			"/etc/tuned/active_profile": "mine\n", "/etc/tuned/mine/tuned.conf": "[main]\ninclude=net\n",
			"/usr/lib/tuned/net/tuned.conf": "[sysctl]\n" + keyReuse + "=1\n",
		}, "tuned's active profile sets " + keyReuse + " (/usr/lib/tuned/net/tuned.conf)"},
		{"tuned, about another key", map[string]string{
			"/etc/tuned/active_profile": "mine\n", "/etc/tuned/mine/tuned.conf": "[sysctl]\nvm.swappiness=1\n",
		}, ""},
		{"cloud-init", map[string]string{"/etc/cloud/cloud.cfg.d/50.cfg": "runcmd:\n - sysctl -w " + keyReuse + "=0\n"}, "cloud-init may set"},
		{"Puppet", map[string]string{
			"/opt/puppetlabs/puppet/cache/client_data/catalog/a.json": `{"title":"` + keyReuse + `"}`,
		}, "Puppet's catalogue"},
	} {
		d, err := planDropIn(disk(t, c.files), "7", reuseOn)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(d.Warnings) > 1 || (c.want == "") != (len(d.Warnings) == 0) {
			t.Errorf("%s: %v", c.name, d.Warnings)
		} else if c.want != "" && !strings.Contains(d.Warnings[0].String(), c.want) {
			t.Errorf("%s: %v", c.name, d.Warnings)
		}
	}
}

// A file that others changed is left, and told; forced, it goes.
func TestRollbackOfAFileThatOthersChanged(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		w := newWorld(t)
		root := w.ofTheHost()
		e := w.apply(time.Minute)
		if _, _, err := ConfirmAndKeep(w.dir, root, e.ID); err != nil {
			t.Fatal(err)
		}
		files := w.files(root)
		if len(files) != 1 {
			t.Fatalf("files %v", files)
		}
		if err := os.WriteFile(files[0], []byte("# mine now\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		e, err := Rollback(w.dir, e.ID, force)
		if err != nil || w.values() != oldValues {
			t.Fatalf("values %v, %v", w.values(), err)
		}
		want := deed.FileLeft
		if force {
			want = deed.FileTaken
		}
		notes := e.Report(w.dir).Notes
		if left := len(w.files(root)) == 1; left == force || len(notes) != 1 || notes[0].Kind != want {
			t.Errorf("forced %t: left %t, notes %v", force, left, notes)
		}
	}
}

// What is planned to be kept is not, where nobody confirms: the journal forgets it.
func TestKeptByNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.ofTheHost()
	e := w.apply(time.Minute)
	j, err := journal.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	file, err := planDropIn(root, e.ID, reuseOn)
	if err := errors.Join(err, j.Append(kindKeeping, e.ID, file), j.Close()); err != nil {
		t.Fatal(err)
	}
	if e, err = Confirm(w.dir, e.ID); err != nil || !e.Settled() || len(w.files(root)) != 0 {
		t.Errorf("confirmed without --persist: %+v, files %v, %v", e, w.files(root), err)
	}
}

// What no file of this host can keep is told: the patch of a pod's manifest, and what
// starts a container.
func TestKeptElsewhere(t *testing.T) {
	t.Parallel()
	for label, wants := range map[string][]string{
		"pod shop/cart": {"kubectl patch", "--allowed-unsafe-sysctls=" + keyReuse, "- name: " + keyReuse + "\n          value: \"1\""},
		"container web": {"compose.yaml", "services:\n", "      " + keyReuse + ": \"1\"\n"},
	} {
		w := newWorld(t)
		root := w.ofTheHost()
		for i := range w.plan.Changes {
			w.plan.Changes[i].Scope.Label = labelled(label)
		}
		e := w.apply(time.Minute)
		e, kept, err := ConfirmAndKeep(w.dir, root, e.ID)
		if err != nil || e.State != deed.Confirmed || kept.File != "" || len(w.files(root)) != 0 {
			t.Fatalf("%s: %+v, %v", label, kept, err)
		}
		for _, want := range wants {
			if !strings.Contains(kept.Manifest, want) {
				t.Errorf("%s: no %q in:\n%s", label, want, kept.Manifest)
			}
		}
	}
}

// What is kept over a boot is in a file that has the last word; where another one has
// it nothing is confirmed. A rollback leaves the values and the file as before, and
// starts no second watcher while the first is there.
func TestConfirmAndKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.ofTheHost()
	conf := filepath.Join(root, "etc/sysctl.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("net.ipv4.tcp_tw_reuse = 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := w.apply(time.Minute)
	_, _, err := ConfirmAndKeep(w.dir, root, e.ID)
	if err == nil || !strings.Contains(err.Error(), "nothing is confirmed: ") || w.entry(e.ID).State != deed.Pending {
		t.Errorf("state %s, %v", w.entry(e.ID).State, err)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	_, kept, err := ConfirmAndKeep(w.dir, root, e.ID)
	if err != nil || w.entry(e.ID).State != deed.Confirmed {
		t.Fatalf("state %s, %v", w.entry(e.ID).State, err)
	}
	text, err := os.ReadFile(filepath.Join(root, kept.File))
	if err != nil || !strings.Contains(string(text), "net.ipv4.tcp_tw_reuse = 1") || !strings.Contains(string(text), e.ID) {
		t.Errorf("%s: %s, %v", kept.File, text, err)
	}
	if r := w.entry(e.ID).Report(w.dir); r.File != kept.File {
		t.Errorf("the history tells of %q", r.File)
	}
	e, err = Rollback(w.dir, e.ID, false)
	if err != nil || w.values() != oldValues || len(w.files(root)) != 0 {
		t.Errorf("values %v, files %v, %v", w.values(), w.files(root), err)
	}
	if len(w.processes()) > 1 {
		t.Errorf("watchers %v", w.processes())
	}
	if r := e.Report(w.dir); r.File != "" || len(r.Notes) != 1 || r.Notes[0].String() != kept.File+" is taken away" {
		t.Errorf("the history tells of %q, %v", r.File, r.Notes)
	}
}
