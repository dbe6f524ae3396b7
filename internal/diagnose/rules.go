package diagnose

// Rules are all problems, in the order in which they are looked for: what fails
// first, then what costs, then settings.
func Rules() []Rule {
	return []Rule{
		portExhaustionRule,
		timeWaitOverflowRule,
		conntrackFullRule,
		natPortExhaustionRule,
		acceptQueueOverflowRule,
		closeWaitLeakRule,
		vanishedConnectionsRule,
		synOnTimeWaitRule,
		orphanPileUpRule,
		finWait2PileUpRule,
		bindBeforeConnectRule,
		clientClosesFirstRule,
		connectionChurnRule,
		addressInUseRule,
		resourcePressureRule,
		twReuseRule,
		twRecycleRule,
		finTimeoutRule,
	}
}
