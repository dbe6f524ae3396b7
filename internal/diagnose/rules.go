package diagnose

import "slices"

// rules are all problems, in the order in which they are looked for: what fails
// first, then what costs, then settings.
var rules = []Rule{
	portExhaustion,
	timeWaitOverflow,
	conntrackFull,
	natPortExhaustion,
	acceptQueueOverflow,
	closeWaitLeak,
	vanishedConnections,
	synOnTimeWait,
	orphanPileUp,
	finWait2PileUp,
	bindBeforeConnect,
	clientClosesFirst,
	connectionChurn,
	addressInUse,
	resourcePressure,
	twReuse,
	twRecycle,
	finTimeout,
}

// Rules lists what is looked for, in order.
func Rules() []Rule { return slices.Clone(rules) }
