package deed

import (
	"fmt"
	"strings"

	"linger/internal/plan"
)

// Note is what else to know of a plan that was applied: what became of the file that
// keeps it over a boot, and who else sets its keys.
type Note struct {
	Kind NoteKind
	// File is the one that the note is about, Key the setting, Scope its place; each is
	// empty where the kind needs none.
	File  string
	Key   string
	Scope plan.Scope
	// Detail is the line that keeps a value, who writes a file, an error, or what another
	// version of linger wrote.
	Detail string
}

// NoteKind is the kind of a note.
type NoteKind string

// The kinds of note.
const (
	// FileTaken: linger took its file away. FileLeft: others had changed it. FileUnwritten:
	// it was not there yet. FileVanished: it was no more. FileFailed: it could not be
	// written, and Detail is the error.
	FileTaken     NoteKind = "file-taken"
	FileLeft      NoteKind = "file-left"
	FileUnwritten NoteKind = "file-unwritten"
	FileVanished  NoteKind = "file-vanished"
	FileFailed    NoteKind = "file-failed"
	// KeptElsewhere: Detail is the line that keeps the value of Key in Scope, and belongs
	// into File.
	KeptElsewhere NoteKind = "kept-elsewhere"
	// Managed: the program that Detail names seems to write File, which sets Key. ByTuned,
	// ByCloudInit and ByPuppet: so does what they keep in File.
	Managed     NoteKind = "managed"
	ByTuned     NoteKind = "tuned"
	ByCloudInit NoteKind = "cloud-init"
	ByPuppet    NoteKind = "puppet"
	// NoteTold: the journal has a sentence that this version does not write.
	NoteTold NoteKind = "told"
)

// fates are how the journal keeps what became of a file, after its path; an error follows
// the last one.
var fates = []struct {
	kind NoteKind
	text string
}{
	{FileTaken, " is taken away"},
	{FileLeft, ": the file is not what linger wrote: it was changed since, and is left"},
	{FileUnwritten, " was not written yet"},
	{FileVanished, " was gone already"},
	{FileFailed, " could not be written: "},
}

// FateOf is the note that the journal keeps of a file as a sentence.
func FateOf(file, sentence string) Note {
	rest, found := strings.CutPrefix(sentence, file)
	for _, f := range fates {
		detail, is := strings.CutPrefix(rest, f.text)
		if found && is && (detail == "" || f.kind == FileFailed) {
			return Note{Kind: f.kind, File: file, Detail: detail}
		}
	}
	return Note{Kind: NoteTold, Detail: sentence}
}

// String is the sentence for it.
func (n Note) String() string {
	for _, f := range fates {
		if f.kind == n.Kind {
			return n.File + f.text + n.Detail
		}
	}
	switch n.Kind {
	case KeptElsewhere:
		return fmt.Sprintf("%s in %s is kept by %s: %s", n.Key, n.Scope, n.File, n.Detail)
	case Managed:
		return fmt.Sprintf("%s seems to write %s, which sets %s: change it there, or it will come back", n.Detail, n.File, n.Key)
	case ByTuned:
		return fmt.Sprintf("tuned's active profile sets %s (%s); "+
			"it applies sysctl.d after it only while reapply_sysctl is 1 in /etc/tuned/tuned-main.conf", n.Key, n.File)
	case ByCloudInit:
		return fmt.Sprintf("cloud-init may set %s (%s): a new instance begins from there", n.Key, n.File)
	case ByPuppet:
		return fmt.Sprintf("Puppet's catalogue has %s (%s): its next run may set it anew", n.Key, n.File)
	default:
		return n.Detail
	}
}

// MarshalText is the sentence, which is all that journals and the JSON of reports have.
func (n Note) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText takes a sentence as it is: what it is about is not read out of it.
func (n *Note) UnmarshalText(text []byte) error {
	*n = Note{Kind: NoteTold, Detail: string(text)}
	return nil
}
