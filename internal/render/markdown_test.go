package render

import (
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	source "github.com/yuin/goldmark/text"

	"linger/internal/story"
)

// Whatever a process calls itself, it is read as those very words, on one line.
func FuzzEscape(f *testing.F) {
	for _, name := range []string{"nginx", "a|b", "<script>", "*bold*", "`x`", "[a](b)", "# h", "1. x", "- x", "a\nb", "&lt;", "\\",
		"https://x.y", "a_b_c", "~~x~~", "=", "---", "@me"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := escape(story.Clean(name))
		if strings.ContainsAny(got, "\n\r") {
			t.Fatalf("%q is not one line", got)
		}
		text := []byte("- " + got + "\n")
		document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(source.NewReader(text))
		err := ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			switch n.Kind() {
			case ast.KindEmphasis,
				ast.KindLink,
				ast.KindImage,
				ast.KindRawHTML,
				ast.KindHTMLBlock,
				ast.KindCodeSpan,
				ast.KindHeading,
				ast.KindFencedCodeBlock,
				ast.KindBlockquote,
				ast.KindThematicBreak:
				t.Errorf("%q is read as %s", name, n.Kind())
			}
			if n.Kind() == ast.KindList && n.Parent().Kind() != ast.KindDocument {
				t.Errorf("%q begins a list", name)
			}
			return ast.WalkContinue, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A command is one code span, whatever backquotes it holds.
func FuzzCode(f *testing.F) {
	f.Add("ss -Htan | wc -l")
	f.Add("echo `x` ``y``")
	f.Fuzz(func(t *testing.T, command string) {
		got := code(story.Command{story.Clean(command)})
		if got == "" {
			return
		}
		document := goldmark.New().Parser().Parse(source.NewReader([]byte("now: " + got + "\n")))
		paragraph := document.FirstChild()
		last := paragraph.LastChild()
		if last.Kind() != ast.KindCodeSpan || paragraph.NextSibling() != nil {
			t.Errorf("%q ends as %s", got, last.Kind())
		}
	})
}
