package diagnose

import "linger/internal/snapshot"

// A survey looks at the groups of one namespace after the other for what a rule judges
// of each of them alone.
type survey struct {
	// none says that no group has anything to do with the problem.
	none string
	// judge is what one group has of it, in any unit. What it needs and does not have
	// goes into the verdict.
	judge func(p *place, g *snapshot.Group, v *verdict) (standing, float64)
	// report is the finding on a group that has the problem.
	report func(p *place, g *snapshot.Group, v *verdict) draft
	// fullest says how near the group is that has the most of it without a problem.
	fullest func(p *place, g *snapshot.Group) string
	// other tells whether a group beyond the cap could have the problem; nil where that is
	// told with another problem.
	other func(p *place) bool

	walked bool
	most   float64
	at     *place // where the fullest is, nil as long as there is none
	group  *snapshot.Group
}

// standing is what a group has to do with a problem.
type standing int

const (
	apart    standing = iota // nothing
	below                    // it has some of it, and no problem
	problem                  // it has the problem
	roleless                 // it would, if its role could be told
)

// walk judges the groups of a namespace.
func (s *survey) walk(p *place, v *verdict) {
	s.walked = true
	for i := range p.Groups {
		g := &p.Groups[i]
		switch is, n := s.judge(p, g, v); is {
		case problem:
			v.findings = append(v.findings, s.report(p, g, v))
		case roleless:
			v.unknown = append(v.unknown, p.undecided(g))
		case below:
			if s.at == nil || n > s.most {
				s.most, s.at, s.group = n, p, g
			}
		}
	}
	if p.Other != nil && s.other != nil && s.other(p) {
		v.unknown = append(v.unknown, p.needsRoom())
	}
}

// absent says why no group that was judged has the problem; nothing if none was.
func (s *survey) absent() string {
	switch {
	case s.at != nil:
		return s.fullest(s.at, s.group)
	case s.walked:
		return s.none
	default:
		return ""
	}
}
