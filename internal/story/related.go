package story

import (
	"reflect"
	"slices"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/remedy"
)

// also names what hangs together with a finding, where the parts about it are not told.
func also(f *diagnose.Finding) Section {
	s := Section{Label: Label{Short: "ALSO"}}
	for i, r := range f.Related {
		s.Items = append(s.Items, Item{
			Rank: rankOf(i, Related, RelatedMore, RelatedMore), Until: Whole, Kind: &Noun{"finding", "findings"},
			Text: Clean(relatedName(f, r.Problem) + ": " + verdict(&r)),
		})
	}
	if len(f.Related) > 0 {
		s.Items = append(s.Items, Item{Rank: Named, Until: Related, Text: Clean(relatedNames(f))})
	}
	return s
}

// told is what stands above a part.
type told struct {
	findings []diagnose.Finding
	remedies []remedy.Remedy
}

// about tells whether a finding above is about the same connections.
func (t *told) about(f *diagnose.Finding) bool {
	return t.any(func(a diagnose.Finding) bool { return a.Netns == f.Netns && a.Subject == f.Subject })
}

func (t *told) any(is func(diagnose.Finding) bool) bool {
	return slices.ContainsFunc(t.findings, is)
}

// contains compares as deep as items go: an evidence points at its limit.
func contains[T any](items []T, item T) bool {
	return slices.ContainsFunc(items, func(other T) bool { return reflect.DeepEqual(item, other) })
}

// relatedNames names what is folded under a finding, each problem once.
func relatedNames(f *diagnose.Finding) string {
	var names []string
	for _, r := range f.Related {
		if name := relatedName(f, r.Problem); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// relatedName is the name of a related problem, and whether it is the cause.
func relatedName(f *diagnose.Finding, problem diagnose.Slug) string {
	if problem == f.CausedBy {
		return string(problem) + " (the cause)"
	}
	return string(problem)
}
