package render

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"linger/internal/story"
)

// clean is what a terminal shows of a text.
func clean(text string, ascii bool) string { return Style{ASCII: ascii}.show(story.Clean(text)) }

func TestCleanMakesEscapeSequencesVisible(t *testing.T) {
	for _, c := range []struct{ name, text, want, ascii string }{
		{"plain", "nginx", "nginx", "nginx"},
		{"escape sequence", "a\x1b[31mb", `a\x1b[31mb`, `a\x1b[31mb`},
		{"C1 control", "a\u009bb", `a\x9bb`, `a\x9bb`},
		{"bell and backspace", "\a\b", `\x07\x08`, `\x07\x08`},
		{"new line", "OK\nCRITICAL", "OK CRITICAL", "OK CRITICAL"},
		{"direction override", "a\u202eb", `a\u202eb`, `a\u202eb`},
		{"no UTF-8", "a\xffb", `a\xffb`, `a\xffb`},
		{"signs with an ASCII form", "10.0.0.1 → ::1 · 3×", "10.0.0.1 → ::1 · 3×", "10.0.0.1 -> ::1 - 3x"},
		{"no-break space", "10\u00a0s", "10\u00a0s", "10\u00a0s"},
		{"letters without one", "größe", "größe", `gr\u00f6\u00dfe`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := clean(c.text, false); got != c.want {
				t.Errorf("clean(%q) = %q, want %q", c.text, got, c.want)
			}
			if got := clean(c.text, true); got != c.ascii {
				t.Errorf("clean(%q) in ASCII = %q, want %q", c.text, got, c.ascii)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "nginx", "a\x1b]0;title\a", "\xff\xfe", "\u202e→", "\n\t\r"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, ascii bool) {
		got := clean(text, ascii)
		if !utf8.ValidString(got) {
			t.Fatalf("clean(%q) is no UTF-8: %q", text, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || ascii && r >= utf8.RuneSelf && r != story.NoBreak {
				t.Fatalf("clean(%q) = %q, which holds %U", text, got, r)
			}
		}
		if again := clean(got, ascii); again != got {
			t.Fatalf("clean is not idempotent: %q, then %q", got, again)
		}
	})
}

func FuzzWrap(f *testing.F) {
	f.Add("connect() fails with EADDRNOTAVAIL", 10)
	f.Add("run `sysctl -w a=b` now, or `never", 12)
	f.Add("[2001:db8::1]:443 → [2001:db8::2]:443", 5)
	f.Fuzz(func(t *testing.T, text string, width int) {
		lines := wrap(text, width)
		got, want := strings.Fields(strings.Join(lines, " ")), strings.Fields(strings.ReplaceAll(text, string(story.NoBreak), " "))
		if !slices.Equal(got, want) {
			t.Fatalf("wrap(%q, %d) changed the words: %q", text, width, lines)
		}
	})
}
