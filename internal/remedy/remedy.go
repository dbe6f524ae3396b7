// Package remedy makes the remedies that a finding names concrete: the command or
// the change of the program, the file and line that keep it, what it frees, and
// what it risks. It writes nothing, and knows no remedy that only circulates.
package remedy

import (
	"linger/internal/diagnose"
	"linger/internal/snapshot"
)

// Remedy is one way to cure a problem.
type Remedy struct {
	ID    diagnose.RemedyID `json:"id"`
	Title string            `json:"title"`
	Kind  Kind              `json:"kind"`
	// Now is the shell command that does it at run time, for the namespace of the
	// finding; empty where no command can.
	Now string `json:"now,omitempty"`
	// Sets is what that command writes, in its order; empty where a command does
	// something else.
	Sets []Assignment `json:"-"`
	// Change is what to change in the program or around it, in words; empty where a
	// command is all.
	Change string `json:"change,omitempty"`
	// Examples are lines for programs that are likely here.
	Examples []Example `json:"examples,omitempty"`
	// Persist is what keeps a setting for ever, nil where there is none.
	Persist *Persist `json:"persist,omitempty"`
	// Frees is the effect in numbers.
	Frees string `json:"frees"`
	Risk  string `json:"risk"`
	// NotWhen says when to leave it.
	NotWhen string `json:"not_when"`
	// Mechanism says why it works, Kernels in which versions.
	Mechanism string `json:"mechanism"`
	Kernels   string `json:"kernels"`
}

// Assignment is a sysctl and its new value.
type Assignment struct{ Key, Value string }

// Kind is what a remedy changes.
type Kind string

// The kinds of remedy, in the order in which to prefer them.
const (
	Application Kind = "application"
	Setting     Kind = "setting"
	Address     Kind = "address"
	LastResort  Kind = "last-resort"
)

// Example is how a program says it.
type Example struct {
	Program string `json:"program"`
	Line    string `json:"line"`
}

// Persist is the line that keeps a setting, and where it will really be read: a
// file of the host, or the manifest of a container or pod.
type Persist struct {
	File string `json:"file"`
	Line string `json:"line"`
	// Note says what else to heed, such as a line that has the last word now.
	Note string `json:"note,omitempty"`
}

// For makes the remedies of a finding concrete, in the order in which to try them.
// The snapshot is the one that was judged.
func For(f diagnose.Finding, s *snapshot.Snapshot) []Remedy {
	at := siteOf(f, s)
	remedies := make([]Remedy, 0, len(f.Remedies))
	for _, id := range f.Remedies {
		concrete, known := makers[id]
		if !known {
			continue
		}
		r := concrete(at)
		r.ID = id
		remedies = append(remedies, r)
	}
	return remedies
}

var makers = map[diagnose.RemedyID]func(*site) Remedy{
	diagnose.KeepConnections:        keepConnections,
	diagnose.PeerClosesFirst:        peerClosesFirst,
	diagnose.KeepAlive:              keepAlive,
	diagnose.CloseSockets:           closeSockets,
	diagnose.RestartProcess:         restartProcess,
	diagnose.BindAddressNoPort:      bindAddressNoPort,
	diagnose.MoreAddresses:          moreAddresses,
	diagnose.WidenPortRange:         widenPortRange,
	diagnose.ReuseOn:                reuseOn,
	diagnose.ReuseDelayDefault:      reuseDelayDefault,
	diagnose.TimestampsOn:           timestampsOn,
	diagnose.RaiseBuckets:           raiseBuckets,
	diagnose.FinTimeoutDefault:      finTimeoutDefault,
	diagnose.LingerZero:             lingerZero,
	diagnose.ReservePort:            reservePort,
	diagnose.ReuseAddress:           reuseAddress,
	diagnose.EndBlocker:             endBlocker,
	diagnose.RaiseTracked:           raiseTracked,
	diagnose.ShorterTrackedTimeWait: shorterTrackedTimeWait,
	diagnose.NoTrack:                noTrack,
	diagnose.MoreNATAddresses:       moreNATAddresses,
	diagnose.WiderNATPorts:          widerNATPorts,
	diagnose.CloseWithFIN:           closeWithFIN,
	diagnose.ReadToEnd:              readToEnd,
	diagnose.ProbeIdle:              probeIdle,
	diagnose.IdleBelowPeer:          idleBelowPeer,
	diagnose.LongerConntrack:        longerConntrack,
	diagnose.RFC1337Off:             rfc1337Off,
	diagnose.NATMemory:              natMemory,
	diagnose.ReadFaster:             readFaster,
	diagnose.RaiseTCPMem:            raiseTCPMem,
	diagnose.SpreadSoftirq:          spreadSoftirq,
	diagnose.RaiseNetdevBacklog:     raiseNetdevBacklog,
	diagnose.AcceptSooner:           acceptSooner,
	diagnose.RaiseBacklog:           raiseBacklog,
	diagnose.RaiseSomaxconn:         raiseSomaxconn,
	diagnose.PeerCloses:             peerCloses,
	diagnose.BoundHalfClose:         boundHalfClose,
	diagnose.ReachPeer:              reachPeer,
	diagnose.FewerOrphanRetries:     fewerOrphanRetries,
	diagnose.RaiseMaxOrphans:        raiseMaxOrphans,
	diagnose.RecycleOff:             recycleOff,
}
