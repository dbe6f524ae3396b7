package linger_test

import (
	"go/token"
	"go/types"
	"slices"
	"strings"
	"sync"
	"testing"

	gopackages "golang.org/x/tools/go/packages"
)

// typed are the module's own packages with their types; a package with tests of its own is there twice, and
// files of tests are among the latter.
var typed = sync.OnceValues(func() ([]*gopackages.Package, error) {
	return gopackages.Load(&gopackages.Config{
		Mode: gopackages.NeedName | gopackages.NeedFiles | gopackages.NeedSyntax | gopackages.NeedTypes | gopackages.NeedTypesInfo |
			gopackages.NeedImports,
		Tests: true,
	}, "./...")
})

func typedPackages(t *testing.T) []*gopackages.Package {
	t.Helper()
	all, err := typed()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, err := range p.Errors {
			t.Fatal(err)
		}
	}
	return all
}

// calledByOthers are methods that fmt, errors, encoding/json, io, sort and pflag call by an interface.
var calledByOthers = []string{
	"String", "Error", "Unwrap", "Is", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "Set", "Type", "Write", "Read", "Close",
	"Len", "Less", "Swap",
}

// No function, method or variable is exported for tests alone: where tests of other packages use it, so does the
// code of one, and what no code uses at all is there for nobody. Packages that help tests are for tests; a type or
// a constant of an enumeration may be exported for completeness, and an error so that it can be told from others.
func TestExports(t *testing.T) {
	byCode, byOtherCode, byOtherTests := map[string]bool{}, map[string]bool{}, map[string]bool{}
	declared, ofInterface := map[string]types.Object{}, map[string]bool{}
	for _, p := range typedPackages(t) {
		at := func(o types.Object) string { return p.Fset.Position(o.Pos()).String() }
		isTest := func(o interface{ Pos() token.Pos }) bool {
			return strings.HasSuffix(p.Fset.Position(o.Pos()).Filename, "_test.go")
		}
		inside := func(o types.Object) bool { // of the same folder
			return strings.TrimSuffix(o.Pkg().Path(), "_test") == strings.TrimSuffix(p.Types.Path(), "_test") && !strings.HasSuffix(p.Name, "_test")
		}
		for id, object := range p.TypesInfo.Uses {
			if object.Pkg() == nil || !strings.HasPrefix(object.Pkg().Path(), module) {
				continue
			}
			key := at(origin(object))
			switch {
			case isTest(id):
				byOtherTests[key] = byOtherTests[key] || !inside(object)
			case inside(object):
				byCode[key] = true
			default:
				byCode[key], byOtherCode[key] = true, true
			}
		}
		for id, object := range p.TypesInfo.Defs {
			if object == nil || !object.Exported() || isTest(id) || p.Name == "main" || strings.HasSuffix(p.Name, "test") || !atTop(object) {
				continue
			}
			switch o := object.(type) {
			case *types.Func:
				if o.Signature().Recv() == nil || !slices.Contains(calledByOthers, o.Name()) {
					declared[at(o)] = o
				}
			case *types.Var:
				declared[at(o)] = o
			case *types.TypeName: // whose methods are called by it
				if i, isInterface := o.Type().Underlying().(*types.Interface); isInterface {
					for m := range i.Methods() {
						ofInterface[m.Name()] = true
					}
				}
			}
		}
	}
	for key, object := range declared {
		if f, isFunc := object.(*types.Func); isFunc && f.Signature().Recv() != nil && ofInterface[f.Name()] {
			continue
		}
		switch {
		case !byCode[key]:
			t.Errorf("%s: %s is used by no code", key, object.Name())
		case byOtherTests[key] && !byOtherCode[key] && !strings.HasPrefix(object.Name(), "Err"):
			t.Errorf("%s: %s is exported for tests alone", key, object.Name())
		}
	}
}

// origin is a generic object that an instance is of.
func origin(object types.Object) types.Object {
	switch o := object.(type) {
	case *types.Func:
		return o.Origin()
	case *types.Var:
		return o.Origin()
	}
	return object
}

// atTop tells whether an object is declared by a package, or is a method: no field, parameter or local.
func atTop(object types.Object) bool {
	if f, isFunc := object.(*types.Func); isFunc && f.Signature().Recv() != nil {
		return !types.IsInterface(f.Signature().Recv().Type())
	}
	return object.Parent() == object.Pkg().Scope()
}
