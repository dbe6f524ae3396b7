package render_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"linger/docs"
	"linger/internal/explain"
	"linger/internal/render"
)

func drawn(t testing.TB, markdown string, style render.Style) string {
	t.Helper()
	var b strings.Builder
	if err := render.Page(&b, markdown, style); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPage(t *testing.T) {
	const markdown = "# name: title\n\nSome **bold** words and `a command of several words` that are\nwrapped, [and a link](x.md).\n\n" +
		"## A part\n\n- one\n- two, which is long enough to be wrapped at forty columns\n\n1. **First**: do → it.\n2. Then.\n\n" +
		"| a | b |\n|---|---|\n| long cell | x |\n| y | the last one is wrapped when there is no room |\n\n    ss -Htan  # as it is\n"
	const want = `name: title

Some bold words and
` + "`a command of several words`" + ` that are
wrapped, and a link.

A PART

- one
- two, which is long enough to be
  wrapped at forty columns

1. First: do -> it.
2. Then.

  a          b
  long cell  x
  y          the last one is wrapped
             when there is no room

    ss -Htan  # as it is
`
	if diff := cmp.Diff(want, drawn(t, markdown, render.Style{Width: 40, ASCII: true})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The pages fit a terminal of 80 columns, but for what cannot be cut, and an ASCII
// terminal gets ASCII.
func TestPagesFit(t *testing.T) {
	topics, err := explain.Topics(docs.Pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		for line := range strings.Lines(drawn(t, topic.Text, render.Style{Width: 80})) {
			line = strings.TrimRight(line, "\n")
			if code := strings.HasPrefix(
				line,
				"    ",
			); utf8.RuneCountInString(line) > 80 && !code && len(strings.Fields(line)) > 1 &&
				!strings.Contains(line, "`") {
				t.Errorf("%s: %d columns: %s", topic.Name, utf8.RuneCountInString(line), line)
			}
		}
		for _, r := range drawn(t, topic.Text, render.Style{Width: 80, ASCII: true}) {
			if r >= utf8.RuneSelf {
				t.Errorf("%s: %q on an ASCII terminal", topic.Name, r)
			}
		}
	}
}
