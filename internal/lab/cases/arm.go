package cases

import "linger/internal/proof"

// why adds the mechanism, in a sentence.
func why(a proof.Arm, note string) proof.Arm {
	a.Note = note
	return a
}

// base, remedy, folklore and observe make arms.
func base(title string, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: "base", Title: title, Within: within}
}

func remedy(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Remedy, Expect: expect, Within: within}
}

func folklore(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Folklore, Expect: expect, Within: within}
}

func observe(id, title, how string, expect proof.Verdict, within ...proof.Bound) proof.Arm {
	return proof.Arm{ID: id, Title: title, How: how, Kind: proof.Observation, Expect: expect, Within: within}
}

// less makes a quantity one that a remedy lowers.
func less(q proof.Quantity) proof.Quantity {
	q.Better = proof.Less
	return q
}

// turning says what an arm sets: a sysctl without its directories, an option of a socket, a
// command.
func turning(knob string, a proof.Arm) proof.Arm {
	a.Knob = knob
	return a
}

// againOverIPv6 is an arm that repeats another over IPv6.
func againOverIPv6(a proof.Arm) proof.Arm {
	a.OverIPv6 = true
	return a
}
