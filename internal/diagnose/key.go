package diagnose

import (
	"fmt"
	"strings"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// NetnsID is what a namespace is known by: its cookie, which is never used again, or its
// inode before kernel 5.14, which has no cookies. It is zero for the whole host.
type NetnsID struct{ Cookie, Inode uint64 }

func idOf(cookie, inode uint64) NetnsID {
	if cookie != 0 {
		inode = 0
	}
	return NetnsID{cookie, inode}
}

func (n NetnsID) String() string {
	switch {
	case n.Cookie != 0:
		return fmt.Sprintf("cookie %d", n.Cookie)
	case n.Inode != 0:
		return fmt.Sprintf("inode %d", n.Inode)
	default:
		return "host"
	}
}

// Key tells a finding from all others of a diagnosis, and is that of the same finding in
// the next: no count is in it, nor what is largest at the moment.
type Key struct {
	Problem Slug
	Netns   NetnsID
	// Subject is less than the finding's own where that is an example of several.
	Subject Subject
	// Part tells apart what shares all that: an owner, a file of sysctl.d, a resource.
	Part string
}

// bootPart is the part of a finding on a line of a file: another line of the same file is
// for other programs.
func bootPart(b snapshot.BootSetting) string { return b.File + " for " + strings.Join(b.Loaders, ", ") }

// String is the key in one line, different for each. What may come from outside is quoted.
func (k Key) String() string {
	parts := []string{string(k.Problem), k.Netns.String()}
	if k.Subject.Role != "" {
		parts = append(parts, string(k.Subject.Role))
	}
	none := tcp.Endpoint{}
	if k.Subject.Local != none || k.Subject.Remote != none {
		parts = append(parts, way(k.Subject.Local, k.Subject.Remote))
	}
	if k.Part != "" {
		parts = append(parts, fmt.Sprintf("%q", k.Part))
	}
	return strings.Join(parts, ", ")
}
