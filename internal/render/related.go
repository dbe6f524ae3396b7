package render

import (
	"reflect"
	"slices"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/remedy"
)

// also tells what is folded under a finding: whole for -v, else in a few words.
func (t Text) also(b *block, d *Document, f *diagnose.Finding, remedies []remedy.Remedy, much detail) {
	switch {
	case len(f.Related) == 0:
	case much.checks:
		t.folded(b, d, f, remedies, much)
	case much.related > 0:
		b.section("ALSO")
		for i, r := range f.Related {
			if i == much.related {
				b.paragraph("", faint, more(len(f.Related)-i, "finding", "findings"))
				break
			}
			b.paragraph("", plain, relatedName(f, r.Problem)+": "+summary(&r))
		}
	case much.named:
		b.section("ALSO")
		b.paragraph("", plain, relatedNames(f))
	}
}

// folded tells each related finding, but nothing of it that stands above already.
func (t Text) folded(b *block, d *Document, f *diagnose.Finding, remedies []remedy.Remedy, much detail) {
	above := []diagnose.Finding{*f}
	for _, r := range f.Related {
		concrete := d.Remedies(r)
		above = append(above, r)
		less := much
		for _, a := range above[:len(above)-1] {
			if a.Netns == r.Netns && a.Subject == r.Subject {
				less.owners, less.history = 0, false
			}
			r.Evidence = without(r.Evidence, a.Evidence)
			r.RuledOut = without(r.RuledOut, a.RuledOut)
			r.WillNotHelp = without(r.WillNotHelp, a.WillNotHelp)
			r.Unsure = without(r.Unsure, a.Unsure)
		}
		less.above = remedies
		b.blank()
		t.single(b, d, &r, concrete, less)
		remedies = slices.Concat(remedies, concrete)
	}
}

// without is what of the items was not told above.
func without[T any](items, above []T) []T {
	return slices.DeleteFunc(slices.Clone(items), func(item T) bool { return contains(above, item) })
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
