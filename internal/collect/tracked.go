package collect

import (
	"cmp"
	"context"
	"slices"

	"linger/internal/kernel/conntrack"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

const (
	// trackedSample is how many entries of a table are looked at: the interval of a
	// share is then one percent wide, whatever the size of the table.
	trackedSample = 16384
	// translationsTold is how many translations are reported, the busiest.
	translationsTold = 10
	// tableFull is the share of its limit, in percent, from which on a table is looked
	// into.
	tableFull = 50
)

// lookIntoTables samples the connection-tracking tables that are filling up or drop.
func (r *reading) lookIntoTables(ctx context.Context) {
	for _, ns := range r.namespaces {
		if c := ns.facts.Conntrack; c == nil || c.Count == 0 || !worthALook(c, ns.rise) {
			continue
		}
		err := ns.handle.Do(func() error {
			var err error
			ns.facts.Conntrack.Sample, err = sampleTable(ctx)
			return err
		})
		if err != nil && ctx.Err() == nil {
			r.gap(ns.label(), "what the connection-tracking table holds", needsRights("CAP_NET_ADMIN"), err)
		}
	}
}

func worthALook(c *snapshot.Conntrack, rise *snapshot.NamespaceInterval) bool {
	if c.Max > 0 && 100*c.Count >= tableFull*c.Max {
		return true
	}
	return rise != nil && slices.ContainsFunc([]string{"drop", "early_drop", "insert_failed"}, func(name string) bool {
		n, _ := rise.Conntrack.Rose(name)
		return n > 0
	})
}

type translationKey struct {
	source, destination tcp.Endpoint
}

func sampleTable(ctx context.Context) (*snapshot.ConntrackSample, error) {
	out := &snapshot.ConntrackSample{States: map[string]int{}}
	translations := map[translationKey]*snapshot.Translation{}
	var err error
	out.Complete, err = conntrack.Sample(ctx, trackedSample, func(f conntrack.Flow) {
		out.Entries++
		out.States[f.State]++
		if !f.Translated {
			return
		}
		out.Translated++
		key := translationKey{
			tcp.Endpoint{Addr: f.Source.Addr()},
			tcp.Endpoint{Addr: f.Destination.Addr(), Port: f.Destination.Port()},
		}
		t := translations[key]
		if t == nil {
			t = &snapshot.Translation{Source: key.source, Destination: key.destination}
			translations[key] = t
		}
		t.Entries++
		if f.State == "time_wait" {
			t.TimeWait++
		}
	})
	if err != nil {
		return nil, err
	}
	for _, t := range translations {
		out.Translations = append(out.Translations, *t)
	}
	slices.SortFunc(out.Translations, func(a, b snapshot.Translation) int {
		return cmp.Or(cmp.Compare(b.Entries, a.Entries), cmp.Compare(a.Destination.String(), b.Destination.String()),
			cmp.Compare(a.Source.String(), b.Source.String()))
	})
	out.Translations = slices.Clip(out.Translations[:min(len(out.Translations), translationsTold)])
	return out, nil
}
