package linger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	// mostColumns is how long a line may be; a tab is one column.
	mostColumns = 140
	// mostLines is how long a file of a room may be.
	mostLines = 600
)

// sources walks the sources in Go and C, but for those that a program writes.
func sources(t *testing.T, see func(file, text string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && file != ".") {
			return filepath.SkipDir
		}
		switch filepath.Ext(file) {
		case ".go", ".c", ".h":
		default:
			return nil
		}
		text, err := os.ReadFile(file)
		if head, _, _ := strings.Cut(string(text), "\n"); !strings.HasPrefix(head, "// Code generated ") {
			see(file, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinesFitAScreen(t *testing.T) {
	sources(t, func(file, text string) {
		number := 0
		for line := range strings.Lines(text) {
			number++
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > mostColumns {
				t.Errorf("%s:%d has %d columns, want %d at most", file, number, n, mostColumns)
			}
		}
	})
}

func TestFilesCanBeRead(t *testing.T) {
	sources(t, func(file, text string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		if lines := strings.Count(text, "\n"); lines > mostLines {
			t.Errorf("%s has %d lines, want %d at most", file, lines, mostLines)
		}
	})
}

// No two names of a package, and no two fields and methods of a type, differ by case only.
func TestNamesDiffer(t *testing.T) {
	seen := map[string]token.Position{} // by the place of the name, and the name in lower case
	spelt := map[string]string{}
	files := token.NewFileSet()
	sources(t, func(file, text string) {
		if filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return
		}
		parsed, err := parser.ParseFile(files, file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		named := func(place string, name *ast.Ident) {
			key := place + "." + strings.ToLower(name.Name)
			at := files.Position(name.Pos())
			if before, found := spelt[key]; found && before != name.Name {
				t.Errorf("%s: %s differs from %s (%s) by case only", at, name.Name, before, seen[key])
			}
			seen[key], spelt[key] = at, name.Name
		}
		declared(parsed, filepath.Dir(file), named)
	})
}

// declared walks the names that a file declares in its package, each with its place: the
// package, or a type of it.
func declared(file *ast.File, room string, named func(place string, name *ast.Ident)) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			place := room
			if d.Recv != nil {
				place += "." + receiver(d.Recv.List[0].Type)
			}
			named(place, d.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, name := range s.Names {
						named(room, name)
					}
				case *ast.TypeSpec:
					named(room, s.Name)
					for _, name := range members(s.Type) {
						named(room+"."+s.Name.Name, name)
					}
				}
			}
		}
	}
}

// receiver is the name of the type that a method belongs to.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// members are the fields of a struct, or the methods of an interface, that have a name.
func members(e ast.Expr) (names []*ast.Ident) {
	var list *ast.FieldList
	switch e := e.(type) {
	case *ast.StructType:
		list = e.Fields
	case *ast.InterfaceType:
		list = e.Methods
	default:
		return nil
	}
	for _, f := range list.List {
		names = append(names, f.Names...)
	}
	return names
}
