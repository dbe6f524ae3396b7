package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"linger/internal/journal"
)

// File is a file, or a directory of files, that a command reads or writes.
type File struct {
	Path string
	Use  string // what for, in whole sentences
}

// Files are those of a command that its flags do not name.
func Files(c *cobra.Command) []File {
	files := []File{{journal.DefaultDir + "/journal", "What linger has changed on this host. " +
		"Each command first looks there for what a linger that was killed has left, and says so if it takes something back."}}
	add := func(file File, commands ...string) {
		if slices.Contains(commands, c.Name()) {
			files = append(files, file)
		}
	}
	add(File{journal.DefaultDir + "/program-*/linger", "Copies of the program, which watch over what is not confirmed yet."}, "apply")
	add(File{journal.DefaultDir + "/unrecorded-*", "What was taken back while the journal was damaged."}, "apply", "status", "history")
	add(File{"/etc/sysctl.d/90-linger-ID.conf", "Keeps a confirmed change over a boot, after confirm --persist; rollback takes it away. " +
		"It has another name where this one would not be read last."}, "confirm", "rollback")
	add(File{"/etc/sysctl.d, /etc/sysctl.conf", "What the next boot sets, as the other directories of sysctl.d(5); they are only read."},
		"linger", "diagnose", "plan", "confirm")
	if c.Flags().Lookup("netns") != nil {
		files = append(files, File{"/run/netns", "The network namespaces that have a name."})
	}
	add(File{"/sys/kernel/btf/vmlinux", "The types of this kernel, by which the BPF programs find their fields. " +
		"Without it nothing is traced."}, "linger", "diagnose", "trace", "plan", "apply")
	add(File{"/dev/net/tun", "What the wire of some experiments is made of."}, "lab", "run", "all", "random", "prove")
	return files
}
