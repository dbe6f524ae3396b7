package change

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/kernel/sysctl"
	"linger/internal/plan"
)

// line is a key and the value that is to outlive a reboot.
type line struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// dropIn is a file of sysctl.d(5) that keeps settings: linger's own, one for each
// change, so that taking one back brings the one before into force again.
type dropIn struct {
	ID string `json:"id"`
	// Root is what Path lies below, empty for the running host.
	Root  string `json:"root,omitempty"`
	Path  string `json:"path"`
	Lines []line `json:"settings"`
	// Displaces are the lines that had the last word before.
	Displaces []sysctl.BootValue `json:"displaces"`
	// Warnings name who else sets these keys, by the traces that he left on disk.
	Warnings []deed.Note `json:"warnings"`
}

// outvotedError means that no name of a file makes linger's value the one in force.
type outvotedError struct {
	// by is the line that would win, for the programs that it names.
	by sysctl.BootValue
}

func (e *outvotedError) Error() string {
	return fmt.Sprintf("%s:%d sets %s = %s, and %s reads it after any file that linger could write; to mend it: sed -i '%ds/^/# /' %s",
		e.by.File, e.by.Line, e.by.Key, e.by.Value, strings.Join(e.by.Loaders, " and "), e.by.Line, e.by.File)
}

// errNotOurs means that a file is not, or no longer, what linger wrote.
var errNotOurs = errors.New("the file is not what linger wrote")

// etcSysctl is where administrators keep settings (sysctl.d(5)).
const etcSysctl = "/etc/sysctl.d"

// names are those to try for a file, each read after the one before. The first is
// where an administrator looks for it.
func names(id string) []string {
	list := []string{"90-linger-" + id, "99-linger-" + id, "99-zz-linger-" + id}
	for n := 1; n <= 8; n++ {
		list = append(list, strings.Repeat("z", n)+"-linger-"+id)
	}
	return list
}

// planDropIn finds the name with which a file below root has the last word on all
// settings, by the rules of systemd-sysctl(8) and of sysctl(8) --system. Where there is
// none, as where /etc/sysctl.conf sets another value, it is an *outvotedError for each
// key. It writes nothing.
func planDropIn(root, id string, lines []line) (dropIn, error) {
	d := dropIn{ID: id, Lines: lines}
	if filepath.Clean(root) != "/" {
		d.Root = root
	}
	if len(lines) == 0 {
		return d, errors.New("keep settings: there are none")
	}
	if id == "" || strings.ContainsAny(id, "/ \n") {
		return d, fmt.Errorf("keep settings: %q is no id", id)
	}
	keys := make([]string, len(lines))
	for i, s := range lines {
		if strings.ContainsAny(s.Key+s.Value, "\n\r") {
			return d, fmt.Errorf("keep settings: %q has more than one line", s.Key)
		}
		keys[i] = s.Key
	}
	before, problems := sysctl.Boot(root, keys)
	if len(problems) > 0 {
		return d, fmt.Errorf("keep settings: who has the last word is not known: %w", errors.Join(problems...))
	}
	d.Displaces = before
	d.Warnings = managed(root, keys, before)

	var outvoted error
	for _, name := range names(id) {
		d.Path = etcSysctl + "/" + name + ".conf"
		after, problems := sysctl.BootWith(root, keys, d.Path, d.text())
		if len(problems) > 0 {
			return d, fmt.Errorf("keep settings: %w", errors.Join(problems...))
		}
		if outvoted = d.outvoted(after); outvoted == nil {
			return d, nil
		}
	}
	return d, outvoted
}

// outvoted is an error for each setting that is not in force after a boot, nil where
// all are.
func (d *dropIn) outvoted(boot []sysctl.BootValue) error {
	var lost []error
	for _, s := range d.Lines {
		agreed := map[string]bool{}
		for _, b := range boot {
			if b.Key != s.Key {
				continue
			}
			if !plan.Same(b.Value, s.Value) {
				lost = append(lost, &outvotedError{b})
			}
			for _, loader := range b.Loaders {
				agreed[loader] = true
			}
		}
		for _, loader := range []string{sysctl.Systemd, sysctl.Procps} {
			if !agreed[loader] {
				lost = append(lost, fmt.Errorf("%s does not set %s: a line that excludes it (-%s) is read later", loader, s.Key, s.Key))
			}
		}
	}
	return errors.Join(lost...)
}

// text is what the file says.
func (d *dropIn) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by linger, change %s. `linger rollback %s` removes this file.\n", d.ID, d.ID)
	for _, s := range d.Lines {
		fmt.Fprintf(&b, "%s = %s\n", s.Key, s.Value)
	}
	return b.String()
}

// write makes the file, whole or not at all, and waits until it is on disk. A file of
// that name that says the same is left as it is; another one is errNotOurs. It then
// reads all files again: where someone has written a later one meanwhile it takes its
// own away, and returns an *outvotedError.
func (d *dropIn) write() error {
	switch text, err := os.ReadFile(d.file()); {
	case err == nil && string(text) == d.text():
		return nil
	case err == nil:
		return fmt.Errorf("keep settings: %s: %w", d.Path, errNotOurs)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("keep settings: %w", err)
	}
	dir := filepath.Dir(d.file())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep settings: %w", err)
	}
	if err := d.create(dir); err != nil {
		return fmt.Errorf("keep settings: %w", err)
	}
	keys := make([]string, len(d.Lines))
	for i, s := range d.Lines {
		keys[i] = s.Key
	}
	boot, problems := sysctl.Boot(d.Root, keys)
	if err := errors.Join(errors.Join(problems...), d.outvoted(boot)); err != nil {
		_, left := d.remove(false)
		return errors.Join(fmt.Errorf("keep settings: %w", err), left)
	}
	return nil
}

// create writes beside the file, and gives it its name when it is whole. Neither
// loader reads a name that does not end in .conf.
func (d *dropIn) create(dir string) error {
	f, err := os.CreateTemp(dir, ".linger-*.new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(d.text())
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, d.file(), unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: f.Name(), New: d.file(), Err: err}
	}
	return journal.SyncDirectory(dir)
}

// remove takes the file away if it still says what linger wrote, and tells whether
// there was one. One that somebody has changed since is errNotOurs, and stays, unless forced. The
// value in the running kernel is not touched.
func (d *dropIn) remove(force bool) (bool, error) {
	text, err := os.ReadFile(d.file())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove kept settings: %w", err)
	}
	if !force && !bytes.Equal(text, []byte(d.text())) {
		return false, fmt.Errorf("%s: %w: it was changed since, and is left", d.Path, errNotOurs)
	}
	if err := os.Remove(d.file()); err != nil {
		return false, fmt.Errorf("remove kept settings: %w", err)
	}
	return true, journal.SyncDirectory(filepath.Dir(d.file()))
}

func (d *dropIn) file() string { return filepath.Join("/", d.Root, d.Path) }
