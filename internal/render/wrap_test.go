package render

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		name  string
		text  string
		width int
		want  []string
	}{
		{"empty", "", 10, []string{""}},
		{"fits", "one two", 7, []string{"one two"}},
		{"breaks at spaces", "one two three", 9, []string{"one two", "three"}},
		{"never cuts a word", "to [2001:db8:ffff:ffff::1]:65535 now", 10, []string{"to", "[2001:db8:ffff:ffff::1]:65535", "now"}},
		{"keeps a command whole", "run `sysctl -w a=b` as root", 12, []string{"run", "`sysctl -w a=b`", "as root"}},
		{"an open backquote is a sign", "it`s one two", 6, []string{"it`s", "one", "two"}},
		{"a no-break space does not break", "a 10\u00a0s b", 4, []string{"a", "10 s", "b"}},
		{"a sign does not begin a line", "12 % used", 4, []string{"12 %", "used"}},
		{"counts signs, not bytes", "ää öö", 5, []string{"ää öö"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, wrap(c.text, c.width)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
