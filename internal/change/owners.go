package change

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

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

// owners name who sets the keys besides the administrator, as far as it can be read
// on disk: tuned's active profile, what cloud-init was given, Puppet's last
// catalogue, and the files of sysctl.d that say who writes them. A manager that keeps
// nothing on this host, such as Ansible without its customary header, is not seen.
func owners(root string, keys []string, boot []sysctl.BootValue) []string {
	var found []string
	for _, b := range boot {
		text, err := os.ReadFile(filepath.Join("/", root, b.File))
		if err != nil {
			continue
		}
		for _, m := range managers {
			if m.marks.MatchString(b.File + "\n" + comments(string(text))) {
				found = append(found, fmt.Sprintf("%s seems to write %s, which sets %s: change it there, or it will come back", m.name, b.File, b.Key))
			}
		}
	}
	for _, key := range keys {
		for _, file := range tunedProfiles(root) {
			if mentions(root, file, key) {
				found = append(found, fmt.Sprintf("tuned's active profile sets %s (%s); it applies sysctl.d after it only while reapply_sysctl is 1 in /etc/tuned/tuned-main.conf", key, file))
			}
		}
		for _, file := range below(root, "/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/cloud-config.txt") {
			if mentions(root, file, key) {
				found = append(found, fmt.Sprintf("cloud-init may set %s (%s): a new instance begins from there", key, file))
			}
		}
		for _, file := range below(root, "/opt/puppetlabs/puppet/cache/client_data/catalog/*.json", "/var/lib/puppet/client_data/catalog/*.json", "/var/cache/puppet/client_data/catalog/*.json") {
			if mentions(root, file, key) {
				found = append(found, fmt.Sprintf("Puppet's catalogue has %s (%s): its next run may set it anew", key, file))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
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
		found, _ := filepath.Glob(filepath.Join("/", root, p)) // the patterns are well formed
		for _, f := range found {
			files = append(files, "/"+strings.TrimPrefix(strings.TrimPrefix(f, filepath.Join("/", root)), "/"))
		}
	}
	return files
}
