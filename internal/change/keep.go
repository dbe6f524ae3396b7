package change

import (
	"errors"
	"fmt"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/plan"
	"linger/internal/snapshot"
)

// Keeps is how a change outlives a boot.
type Keeps struct {
	// File is the drop-in that linger wrote, empty where it wrote none.
	File string
	// Manifest is the patch of a pod's or container's manifest, which no file of this
	// host can replace.
	Manifest string
	Notes    []deed.Note
}

// ConfirmAndKeep is Confirm, and keeps the values over a boot: those of the host in a
// file of sysctl.d below root that really has the last word, or else nothing is
// confirmed. Values of other namespaces are not this host's files to keep: it says
// whose they are.
func ConfirmAndKeep(dir, root, id string) (*Entry, *Keeps, error) {
	k := &Keeps{Notes: []deed.Note{}}
	e, err := confirmWith(dir, id, func(e *Entry) (*dropIn, error) {
		file, err := k.plan(root, e)
		if err != nil {
			return nil, fmt.Errorf("nothing is confirmed: %w", err)
		}
		return file, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return e, k, nil
}

// plan finds what keeps the values of a change, each at its place.
func (k *Keeps) plan(root string, e *Entry) (*dropIn, error) {
	var lines []line
	var pods, containers []plan.Change
	for _, c := range e.Plan.Changes {
		switch kind := c.Scope.Label.Kind; {
		case c.Scope.HostWide || kind == snapshot.LabelHost:
			lines = append(lines, line{Key: c.Key, Value: c.New})
		case kind == snapshot.LabelPod:
			pods = append(pods, c)
		case kind == snapshot.LabelContainer:
			containers = append(containers, c)
		case c.Persist != nil:
			k.Notes = append(k.Notes, deed.Note{
				Kind: deed.KeptElsewhere, Key: c.Key, Scope: c.Scope, File: c.Persist.File, Detail: c.Persist.Line,
			})
		}
	}
	if len(pods) > 0 {
		var err error
		if k.Manifest, err = plan.Emit(plan.EmitK8s, pods); err != nil {
			return nil, err
		}
	}
	if len(containers) > 0 {
		k.Manifest += plan.Compose(containers)
	}
	if len(lines) == 0 {
		return nil, nil
	}
	file, err := planDropIn(root, e.ID, lines)
	if err != nil {
		return nil, err
	}
	k.File, k.Notes = file.Path, append(k.Notes, file.Warnings...)
	return &file, nil
}

// keep writes the file of a confirmed change. Where it cannot, the change stays
// confirmed until the next boot, and the journal says why.
func (e *Entry) keep(j *journal.Journal) error {
	step("before file")
	err := e.file.write()
	step("after file")
	if err == nil {
		e.filed = true
		return record(j, kindFiled, e.ID, nil)
	}
	fate := deed.Note{Kind: deed.FileFailed, File: e.file.Path, Detail: err.Error()}
	e.file = nil
	return errors.Join(fmt.Errorf("change %s is confirmed until the next boot, and not kept beyond it: %w", e.ID, err),
		record(j, kindForgotten, e.ID, sentenceDetail{fate.String()}))
}

// forget takes the file of a change away, where it still says what linger wrote, or
// else if forced. One that others changed stays, and that is told and is no error.
func (e *Entry) forget(j *journal.Journal) error {
	if e.file == nil {
		return nil
	}
	step("before file")
	removed, err := e.file.remove(e.force)
	step("after file")
	fate := deed.Note{Kind: deed.FileTaken, File: e.file.Path}
	switch {
	case errors.Is(err, errNotOurs):
		fate.Kind = deed.FileLeft
	case err != nil:
		return err
	case !removed && !e.filed:
		fate.Kind = deed.FileUnwritten
	case !removed:
		fate.Kind = deed.FileVanished
	}
	e.file, e.filed, e.fate = nil, false, fate
	return record(j, kindForgotten, e.ID, sentenceDetail{fate.String()})
}
