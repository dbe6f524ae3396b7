package diagnose

import (
	"strconv"
	"strings"
)

// In is the command as a person must type it to run it in a namespace.
func In(n Netns, command string) string {
	switch {
	case n.Own:
		return command
	case strings.HasPrefix(n.Path, "/run/netns/"):
		return "ip netns exec " + Quote(strings.TrimPrefix(n.Path, "/run/netns/")) + " " + command
	case n.PID != 0:
		return "nsenter --net=/proc/" + strconv.Itoa(n.PID) + "/ns/net " + command
	case n.Path != "":
		return "nsenter --net=" + Quote(n.Path) + " " + command
	default:
		return command
	}
}

// Quote makes one word for a POSIX shell of the text.
func Quote(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
