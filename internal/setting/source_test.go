package setting_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"linger/internal/setting"
)

// text is a string in a source file, constants that are added to it included.
type text struct{ at, value string }

// texts are those of all rooms below internal, but for tests.
func texts(t *testing.T) (all []text) {
	t.Helper()
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ImportSpec:
				return false
			case *ast.Field:
				return n.Tag == nil // a tag is no text
			case ast.Expr:
				if value, ok := folded(n); ok {
					all = append(all, text{files.Position(n.Pos()).String(), value})
					return false
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 1000 {
		t.Fatalf("only %d texts were found", len(all))
	}
	return all
}

// folded is the value of literals that are added to one another.
func folded(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		value, err := strconv.Unquote(e.Value)
		return value, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := folded(e.X)
		right, alsoOK := folded(e.Y)
		return left + right, e.Op == token.ADD && ok && alsoOK
	}
	return "", false
}

var (
	name = regexp.MustCompile(`\bnet\.(ipv4|ipv6|core|netfilter)\.[a-z]`)
	// example is what a person may type, as the help of a command shows it.
	example = regexp.MustCompile(`linger plan --set [a-z0-9_.]+=`)
)

// Nobody but the catalogue writes a setting's name by hand. The laboratory also turns settings that are none of the
// catalogue's, and tells people what it turns.
func TestNamesStandOnce(t *testing.T) {
	for _, x := range texts(t) {
		value := example.ReplaceAllString(x.value, "")
		isName := slices.ContainsFunc(setting.All(), func(s setting.Setting) bool { return s.Name == value })
		free := strings.HasPrefix(x.at, "../lab/cases/") || strings.HasPrefix(x.at, "../lab/stage/")
		if (isName || name.MatchString(value) && !free) && !strings.HasPrefix(x.at, "../setting/") {
			t.Errorf("%s: %q names a setting: take the constant", x.at, x.value)
		}
	}
}

// What is said of a setting is said once.
func TestSentencesStandOnce(t *testing.T) {
	end := regexp.MustCompile(`[.;:] `)
	about := func(x text, part string) bool {
		return strings.HasPrefix(x.at, "../setting/") || slices.ContainsFunc(setting.All(), func(s setting.Setting) bool {
			return strings.Contains(part, s.Name[strings.LastIndexByte(s.Name, '.')+1:])
		})
	}
	seen := map[string]text{}
	for _, x := range texts(t) {
		for _, part := range end.Split(x.value, -1) {
			if part = strings.TrimRight(part, "."); len(part) < 40 {
				continue
			}
			if first, again := seen[part]; again && (about(x, part) || about(first, part)) {
				t.Errorf("%s: %q stands at %s as well", x.at, part, first.at)
			}
			seen[part] = x
		}
	}
}
