package change

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"linger/internal/deed"
	"linger/internal/kernel/sysctl"
)

// managers are the words by which a file names the program that writes it.
var managers = []struct {
	name  string
	marks *regexp.Regexp
}{
	{"Ansible", regexp.MustCompile(`(?i)ansible`)},
	{"Puppet", regexp.MustCompile(`(?i)puppet`)},
	{"Chef", regexp.MustCompile(`(?i)\bchef\b`)},
	{"Salt", regexp.MustCompile(`(?i)\bsalt(stack)?\b|99-salt\.conf`)},
	{"CFEngine", regexp.MustCompile(`(?i)cfengine`)},
	{"cloud-init", regexp.MustCompile(`(?i)cloud-init`)},
	{"tuned", regexp.MustCompile(`(?i)\btuned\b`)},
}

// cloudFiles are what cloud-init was given, puppetFiles Puppet's last catalogue.
var (
	cloudFiles = []string{
		"/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg",
		"/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/cloud-config.txt",
	}
	puppetFiles = []string{
		"/opt/puppetlabs/puppet/cache/client_data/catalog/*.json",
		"/var/lib/puppet/client_data/catalog/*.json", "/var/cache/puppet/client_data/catalog/*.json",
	}
)

// managed tells who sets the keys besides the administrator, as far as it can be read
// on disk: tuned's active profile, what cloud-init was given, Puppet's last
// catalogue, and the files of sysctl.d that say who writes them. A manager that keeps
// nothing on this host, such as Ansible without its customary header, is not seen.
func managed(root string, keys []string, boot []sysctl.BootValue) []deed.Note {
	var notes []deed.Note
	for _, b := range boot {
		text, err := os.ReadFile(filepath.Join("/", root, b.File))
		if err != nil {
			continue
		}
		for _, m := range managers {
			if m.marks.MatchString(b.File + "\n" + comments(string(text))) {
				notes = append(notes, deed.Note{Kind: deed.Managed, File: b.File, Key: b.Key, Detail: m.name})
			}
		}
	}
	for _, key := range keys {
		for kind, files := range map[deed.NoteKind][]string{
			deed.ByTuned: tunedProfiles(root), deed.ByCloudInit: below(root, cloudFiles...), deed.ByPuppet: below(root, puppetFiles...),
		} {
			for _, file := range files {
				if mentions(root, file, key) {
					notes = append(notes, deed.Note{Kind: kind, File: file, Key: key})
				}
			}
		}
	}
	slices.SortFunc(notes, func(a, b deed.Note) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(notes)
}

func comments(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

// tunedProfiles are the files of the active profile and of those that it includes.
func tunedProfiles(root string) []string {
	active, err := os.ReadFile(filepath.Join("/", root, "/etc/tuned/active_profile"))
	if err != nil {
		return nil
	}
	include := regexp.MustCompile(`(?m)^\s*include\s*=\s*(.+)$`)
	var files []string
	seen := map[string]bool{}
	wanted := strings.Fields(string(active))
	for len(wanted) > 0 {
		name := filepath.Base(wanted[0])
		wanted = wanted[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, dir := range []string{"/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"} {
			file := dir + "/" + name + "/tuned.conf"
			text, err := os.ReadFile(filepath.Join("/", root, file))
			if err != nil {
				continue
			}
			files = append(files, file)
			for _, m := range include.FindAllStringSubmatch(string(text), -1) {
				wanted = append(wanted, strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' })...)
			}
			break // of one name, the first directory's
		}
	}
	return files
}

// mentions tells whether a line that is no comment has the key, with dots or slashes.
func mentions(root, file, key string) bool {
	text, err := os.ReadFile(filepath.Join("/", root, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#") && (strings.Contains(line, key) || strings.Contains(line, strings.ReplaceAll(key, ".", "/"))) {
			return true
		}
	}
	return false
}

// below are the files that match the patterns, without the root prefix.
func below(root string, patterns ...string) []string {
	var files []string
	for _, p := range patterns {
		matches, _ := filepath.Glob(filepath.Join("/", root, p)) // the patterns are well formed
		for _, f := range matches {
			files = append(files, "/"+strings.TrimPrefix(strings.TrimPrefix(f, filepath.Join("/", root)), "/"))
		}
	}
	return files
}
