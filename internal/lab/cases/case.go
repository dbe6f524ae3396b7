// Package cases is what the laboratory builds and measures: one file for each problem, and
// for each question that has none, with what is built, what is expected of it, what a seed
// may draw of it, and its experiments.
package cases

import "linger/internal/lab"

// Case is a problem and what is measured of it, or a question that has no problem of its
// own.
type Case struct {
	// Scenario builds the problem, nil where there is none.
	Scenario    *Scenario
	Experiments []lab.Experiment
}

// All are those of problems in the order of their slugs, then the others.
func All() []Case {
	return []Case{
		acceptQueueOverflow,
		addressInUse,
		bindBeforeConnect,
		clientClosesFirst,
		closeWaitLeak,
		connectionChurn,
		conntrackFull,
		finTimeout,
		finWait2PileUp,
		natPortExhaustion,
		orphanPileUp,
		portExhaustion,
		resourcePressure,
		synOnTimeWait,
		timeWaitOverflow,
		twRecycle,
		twReuse,
		vanishedConnections,
		whyLastAck,
		whyOldSegment,
		proxyWithoutKeepalive,
	}
}

// Experiments are all that can be run, those of problems in the order of their
// slugs, then those that have no problem of their own.
func Experiments() (experiments []lab.Experiment) {
	for _, c := range All() {
		experiments = append(experiments, c.Experiments...)
	}
	return experiments
}
