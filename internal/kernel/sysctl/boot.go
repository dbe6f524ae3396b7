package sysctl

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// The programs that load settings at boot.
const (
	// Systemd is systemd-sysctl(8): src/sysctl/sysctl.c of systemd.
	Systemd = "systemd-sysctl"
	// Procps is sysctl --system: src/sysctl.c of procps, from 3.3.17 on.
	Procps = "procps"
)

// sysctlConf is read by procps after all directories, and by systemd-sysctl only
// where a link such as /etc/sysctl.d/99-sysctl.conf leads to it.
const sysctlConf = "/etc/sysctl.conf"

// BootValue is what a file on disk would set a key to at the next boot.
type BootValue struct {
	Key   string
	Value string // with one space between words
	File  string // where it really lies, links followed, without the root prefix
	Line  int    // from 1
	// Loaders are the programs for which this line has the last word on the key.
	Loaders []string
}

// Boot tells what the files below root would set the keys to at the next boot, in the
// order of the keys. A key that no file sets is left out; one on which the two
// programs differ comes twice. Each file that cannot be read is an error, and the
// rest goes on, as the programs do it.
//
// The kernel's command line, the initial file system and systemd's credentials are
// not looked at. A root other than / needs openat2(2), from Linux 5.6 on.
func Boot(root string, keys []string) ([]BootValue, []error) {
	return BootWith(root, keys, "", "")
}

// BootWith is Boot as it would be with one more file, such as
// /etc/sysctl.d/90-linger-ID.conf.
func BootWith(root string, keys []string, file, text string) ([]BootValue, []error) {
	t, err := openTree(root)
	if err != nil {
		return nil, []error{fmt.Errorf("read boot settings: %w", err)}
	}
	defer t.close()
	t.planned, t.text = file, text

	files, problems := t.configuration()
	var systemd, procps []assignment
	for _, name := range files {
		text, where, err := t.read(name)
		if err != nil {
			problems = append(problems, fmt.Errorf("read boot settings: %w", err))
			continue
		}
		found := parseFile(text, where)
		procps = append(procps, found...)
		if name != sysctlConf && !strings.HasPrefix(path.Base(name), ".") {
			systemd = append(systemd, found...)
		}
	}

	var values []BootValue
	for _, key := range keys {
		a, b := systemdSets(systemd, slashed(key)), procpsSets(procps, slashed(key))
		if a != nil && b != nil && a.file == b.file && a.line == b.line {
			values = append(values, a.forKey(key, Systemd, Procps))
			continue
		}
		if a != nil {
			values = append(values, a.forKey(key, Systemd))
		}
		if b != nil {
			values = append(values, b.forKey(key, Procps))
		}
	}
	return values, problems
}

// systemdSets is the assignment that systemd-sysctl makes to a key, nil for none. The
// last line on a key counts, and one that excludes it (-key) takes back those before
// it. Patterns matter only to a key that no line names; the pattern that was given
// last has the last word, but one that is repeated with the same value keeps its
// place.
func systemdSets(all []assignment, name string) *assignment {
	var own *assignment
	var patterns []assignment
	for _, a := range all {
		switch {
		case a.name == name:
			own = &a
		case a.isPattern() && a.matches(name):
			same := slices.IndexFunc(patterns, func(p assignment) bool { return p.name == a.name })
			if same >= 0 && patterns[same].value == a.value && patterns[same].exclude == a.exclude {
				patterns[same] = a
				continue
			}
			if same >= 0 {
				patterns = slices.Delete(patterns, same, same+1)
			}
			patterns = append(patterns, a)
		}
	}
	if own != nil && own.exclude {
		return nil
	}
	if own != nil {
		return own
	}
	for i := len(patterns) - 1; i >= 0; i-- {
		if !patterns[i].exclude {
			return &patterns[i]
		}
	}
	return nil
}

// procpsSets is the assignment that sysctl --system makes to a key, nil for none. The
// last line that sets the key counts. Patterns matter only to a key that no line
// names or excludes. (An exclusion that is a pattern itself counts in the newest
// procps alone and is not followed here.)
func procpsSets(all []assignment, name string) *assignment {
	var own, pattern *assignment
	excluded := false
	for _, a := range all {
		switch {
		case a.name == name && a.exclude:
			excluded = true
		case a.name == name:
			own = &a
		case a.isPattern() && !a.exclude && a.matches(name):
			pattern = &a
		}
	}
	if own != nil || excluded {
		return own
	}
	return pattern
}

// assignment is one line of a file.
type assignment struct {
	name    string // with slashes, perhaps a pattern
	value   string
	exclude bool // the name alone, after a dash: no pattern is to set it
	file    string
	line    int
}

func (a *assignment) forKey(key string, loaders ...string) BootValue {
	return BootValue{Key: key, Value: a.value, File: a.file, Line: a.line, Loaders: loaders}
}

func (a *assignment) isPattern() bool { return strings.ContainsAny(a.name, "*?[") }

// matches is glob(3): no * or ? stands for a slash. What is not written alike for
// path.Match is the negation of a class, [!a].
func (a *assignment) matches(name string) bool {
	ok, _ := path.Match(strings.ReplaceAll(a.name, "[!", "[^"), name) // a malformed pattern matches nothing
	return ok
}

func parseFile(text []byte, file string) []assignment {
	var found []assignment
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if a, ok := parseLine(string(line)); ok {
			a.file, a.line = file, number
			found = append(found, a)
		}
	}
	return found
}

// parseLine reads one line: key = value, or with a dash before the key to let it fail
// in silence, or the dash and the key alone to exclude it from patterns. It is false
// for comments, for blank lines and for what neither program understands.
func parseLine(line string) (assignment, bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' {
		return assignment{}, false
	}
	key, value, sets := strings.Cut(line, "=")
	key, dash := strings.CutPrefix(key, "-")
	name := strings.TrimPrefix(slashed(strings.TrimSpace(key)), "/")
	if name == "" || !sets && !dash {
		return assignment{}, false
	}
	return assignment{name: name, value: strings.Join(strings.Fields(value), " "), exclude: !sets}, true
}
