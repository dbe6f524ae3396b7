package story

import (
	"fmt"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/proof"
)

// Exam is what a diagnosis made of what the laboratory built.
type Exam struct {
	Verdict Headline
	Where   Text
	Builds  []Build
}

// Build is one thing that was built, and what was named.
type Build struct {
	Mark Mark
	// Seed is empty where it was not drawn.
	Seed, Built, Named, Cured Text
	// Absent: there was nothing to name, for it could not be built.
	Absent bool
	// Told is what there is to say beside the mark, empty where it is right; Again says
	// how to build what was missed again.
	Told, Again Text
}

// Score tells what was named of each build.
func Score(s *proof.Scores) *Exam {
	e := &Exam{
		Verdict: examVerdict(s.Scores),
		Where: Clean(fmt.Sprintf("Linux %s · %s · %s", s.Kernel, figure.Of(s.CPUs, "CPU", "CPUs"),
			figure.Elapsed(time.Duration(s.ElapsedMS)*time.Millisecond))),
	}
	for i := range s.Scores {
		e.Builds = append(e.Builds, buildOf(&s.Scores[i]))
	}
	return e
}

// examVerdict says in one sentence how it came out: what was named as it was built, what
// was not, what could not be built and what this kernel cannot have.
func examVerdict(scores []proof.Score) Headline {
	right, missed, cannot, absent := 0, 0, 0, 0
	for _, score := range scores {
		switch {
		case score.Absent != "":
			absent++
		case score.Cannot != "":
			cannot++
		case score.Miss != "":
			missed++
		default:
			right++
		}
	}
	m := markOK
	text := fmt.Sprintf("linger diagnose named %d of %s as it was built", right, figure.Of(right+missed, "build", "builds"))
	if missed > 0 {
		text += ", and missed " + fmt.Sprint(missed)
	}
	if cannot > 0 {
		m = markIncomplete
		text += fmt.Sprintf("; %d could not be built", cannot)
	}
	if absent > 0 {
		text += fmt.Sprintf("; %d cannot be on this kernel", absent)
	}
	if missed > 0 {
		m = signed('✖', "MISSED", Critical)
	}
	return Headline{m, Clean(text)}
}

func buildOf(s *proof.Score) Build {
	b := Build{
		Mark: signed('✔', "right", Fine), Built: Clean(s.Built), Named: Clean(slugs(s.Named)), Cured: Clean(slugs(s.Cured)),
		Told: Clean(s.Miss),
	}
	if s.Seed != nil {
		b.Seed = Clean(fmt.Sprint(*s.Seed))
	}
	switch {
	case s.Absent != "":
		b.Mark, b.Told, b.Absent = signed('·', "absent", Faint), Clean(s.Absent), true
	case s.Cannot != "":
		b.Mark, b.Told, b.Absent = signed('?', "not built", Warning), Clean(s.Cannot), true
	case s.Miss != "":
		b.Mark = signed('✖', "MISS", Critical)
	}
	if s.Miss != "" && s.Seed != nil {
		b.Again = Clean(fmt.Sprintf("`linger lab random --seed %d` builds it again. Built: %s", *s.Seed, s.Drawn))
	}
	return b
}

func slugs(named []diagnose.Slug) string {
	if len(named) == 0 {
		return "nothing"
	}
	words := make([]string, len(named))
	for i, n := range named {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}

// Drawn is what a seed draws, before it is built.
func Drawn(seed uint64, told string) Text { return Clean(fmt.Sprintf("Seed %d: %s", seed, told)) }
