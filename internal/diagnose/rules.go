package diagnose

import "slices"

// rules are all problems, in the order in which they are looked for.
var rules = []Rule{}

// Rules lists what is looked for, in order.
func Rules() []Rule { return slices.Clone(rules) }
