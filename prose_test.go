package linger_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"testing"
)

// prose are the fields that hold sentences, and the methods that make one: by package, type and name.
var prose = map[string][]string{
	module + "internal/diagnose.Finding":   {"Summary", "Brief", "Why"},
	module + "internal/diagnose.Evidence":  {"Name", "Source", "Check"},
	module + "internal/diagnose.RuledOut":  {"Suspect", "Because"},
	module + "internal/diagnose.Folklore":  {"Advice", "Why"},
	module + "internal/diagnose.Absent":    {"Because"},
	module + "internal/diagnose.Unknown":   {"Netns", "Needs"},
	module + "internal/diagnose.Netns":     {"Label"},
	module + "internal/diagnose.Rule":      {"Title", "Needs"},
	module + "internal/diagnose.Threshold": {"Reason"},
	module + "internal/setting.Setting":    {"Kernels", "Does", "Two", "After", "Risk", "When", "Mechanism"},
	module + "internal/setting.Belief":     {"Advice", "Why"},
	module + "internal/snapshot.Gap":       {"What", "Cause", "Needs"},
	module + "internal/snapshot.Label":     {"String"},
	module + "internal/remedy.Remedy":      {"Title", "Change", "Frees", "Risk", "NotWhen", "Mechanism", "Kernels"},
	module + "internal/plan.Label":         {"String"},
	module + "internal/plan.Change":        {"Reason", "Risk", "Mechanism", "Forced"},
	module + "internal/plan.Effect":        {"Name", "When"},
	module + "internal/proof.Quantity":     {"Title"},
	module + "internal/proof.Arm":          {"Title", "Does"},
	module + "internal/deed.Reason":        {"String", "Detail"},
	module + "internal/deed.Note":          {"String"},
	"error":                                {"Error"},
}

// reads are the functions that look into a text: those of strings, and these packages as a whole.
var reads = map[string][]string{
	"strings": {
		"HasPrefix", "HasSuffix", "Contains", "ContainsAny", "ContainsFunc", "Cut", "CutPrefix", "CutSuffix", "Index", "IndexAny", "IndexByte",
		"LastIndex", "Split", "SplitN", "Fields", "FieldsFunc", "EqualFold", "TrimPrefix", "TrimSuffix", "Count",
	},
	"strconv": {"Atoi", "ParseInt", "ParseUint", "ParseFloat", "ParseBool"},
	"fmt":     {"Sscan", "Sscanf", "Sscanln"},
	"regexp":  nil,
}

// No code looks into prose: what a program must know has a type of its own.
func TestNobodyReadsProse(t *testing.T) {
	for _, p := range typedPackages(t) {
		if p.ID != p.PkgPath {
			continue // with its tests, which may look
		}
		for _, file := range p.Syntax {
			for _, found := range readingOfProse(file, p.TypesInfo) {
				t.Errorf("%s looks into prose", p.Fset.Position(found.Pos()))
			}
		}
	}
}

// The analysis finds what it is for, and leaves alone what is none.
func TestReadingOfProseIsFound(t *testing.T) {
	for body, want := range map[string]int{
		`strings.HasPrefix(err.Error(), "the guard")`:                               1,
		`text := err.Error(); for { strings.Cut(text, " ") }`:                       1,
		`late := ""; for { _ = strings.Fields(late); late = "x" + err.Error() }`:    1,
		`_ = err.Error() == "no such file"`:                                         1,
		`regexp.MustCompile("a").MatchString(err.Error())`:                          1,
		`_ = err.Error() == ""; _ = len(err.Error()); strings.ToUpper(err.Error())`: 0,
		`strings.HasPrefix("net.ipv4", "net"); _ = err != nil`:                      0,
	} {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, "sample.go", "package sample\nimport (\"regexp\"; \"strings\")\n"+
			"var _ = regexp.Match; var _ = strings.Cut\nfunc f(err error) {\n"+body+"\n}", 0)
		if err != nil {
			t.Fatal(err)
		}
		info := &types.Info{
			Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
			Selections: map[*ast.SelectorExpr]*types.Selection{},
		}
		conf := types.Config{Importer: importer.ForCompiler(files, "source", nil)}
		if _, err := conf.Check("sample", files, []*ast.File{file}, info); err != nil {
			t.Fatal(err)
		}
		if got := len(readingOfProse(file, info)); got != want {
			t.Errorf("%s: %d readings, want %d", body, got, want)
		}
	}
}

// readingOfProse finds the calls that look into a sentence, and the comparisons of one with a literal,
// also by way of variables.
func readingOfProse(file *ast.File, info *types.Info) (found []ast.Node) {
	for _, declaration := range file.Decls {
		said := map[types.Object]bool{} // variables that hold prose
		mentions := func(e ast.Node) (is bool) {
			ast.Inspect(e, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					is = is || isProse(info, n)
				case *ast.Ident:
					is = is || said[info.Uses[n]]
				}
				return !is
			})
			return is
		}
		for range 3 { // assignments may stand behind loops
			ast.Inspect(declaration, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for i, to := range n.Lhs {
						from := n.Rhs[min(i, len(n.Rhs)-1)]
						if id, isIdent := to.(*ast.Ident); isIdent && isText(info.TypeOf(to)) && mentions(from) {
							said[objectOf(info, id)] = true
						}
					}
				case *ast.RangeStmt:
					if id, isIdent := n.Value.(*ast.Ident); isIdent && isText(info.TypeOf(n.Value)) && mentions(n.X) {
						said[objectOf(info, id)] = true
					}
				}
				return true
			})
		}
		ast.Inspect(declaration, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if looksInto(info, n) && slices.ContainsFunc(n.Args, func(e ast.Expr) bool { return mentions(e) }) {
					found = append(found, n)
				}
			case *ast.BinaryExpr:
				if n.Op.String() == "==" || n.Op.String() == "!=" {
					for _, pair := range [][2]ast.Expr{{n.X, n.Y}, {n.Y, n.X}} {
						if literal, is := pair[1].(*ast.BasicLit); is && literal.Value != `""` && isText(info.TypeOf(pair[0])) && mentions(pair[0]) {
							found = append(found, n)
						}
					}
				}
			}
			return true
		})
	}
	return found
}

func objectOf(info *types.Info, id *ast.Ident) types.Object {
	if o := info.Defs[id]; o != nil {
		return o
	}
	return info.Uses[id]
}

func isText(t types.Type) bool {
	if t == nil {
		return false
	}
	b, isBasic := t.Underlying().(*types.Basic)
	return isBasic && b.Info()&types.IsString != 0
}

func isProse(info *types.Info, s *ast.SelectorExpr) bool {
	selection := info.Selections[s]
	if selection == nil {
		return false
	}
	t := selection.Recv()
	if p, isPointer := t.(*types.Pointer); isPointer {
		t = p.Elem()
	}
	return slices.Contains(prose[t.String()], s.Sel.Name)
}

func looksInto(info *types.Info, call *ast.CallExpr) bool {
	s, isSelector := call.Fun.(*ast.SelectorExpr)
	if !isSelector {
		return false
	}
	f, isFunc := info.Uses[s.Sel].(*types.Func)
	if !isFunc || f.Pkg() == nil {
		return false
	}
	functions, reads := reads[f.Pkg().Path()]
	return reads && (functions == nil || slices.Contains(functions, f.Name()))
}
