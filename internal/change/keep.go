package change

import (
	"errors"
	"fmt"
	"strings"

	"linger/internal/plan"
)

// The kinds of record about a file that keeps a change over a boot.
const (
	// Keeping: the file is to be written when the change is confirmed. The journal knows
	// of it before, so that whoever goes on after a crash finds it. Filed: it is there.
	Keeping Kind = "keeping"
	Filed   Kind = "filed"
	// Forgotten: it was taken away, or could not be written.
	Forgotten Kind = "forgotten"
)

// Keeps is how a change outlives a boot.
type Keeps struct {
	// File is the drop-in that linger wrote, empty where it wrote none.
	File string
	// Manifest is the patch of a pod's or container's manifest, which no file of this
	// host can replace.
	Manifest string
	Notes    []string
}

// ConfirmAndKeep is Confirm, and keeps the values over a boot: those of the host in a
// file of sysctl.d below root that really has the last word, or else nothing is
// confirmed. Values of other namespaces are not this host's files to keep: it says
// whose they are.
func ConfirmAndKeep(dir, root, id string) (*Entry, *Keeps, error) {
	k := &Keeps{Notes: []string{}}
	e, err := confirm(dir, id, func(e *Entry) (*DropIn, error) {
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
func (k *Keeps) plan(root string, e *Entry) (*DropIn, error) {
	var settings []Setting
	var pods, containers []plan.Change
	for _, c := range e.Plan.Changes {
		switch kind, _, _ := strings.Cut(c.Scope.Label, " "); {
		case c.Scope.HostWide || kind == "host":
			settings = append(settings, Setting{Key: c.Key, Value: c.New})
		case kind == "pod":
			pods = append(pods, c)
		case kind == "container":
			containers = append(containers, c)
		case c.Persist != nil:
			k.Notes = append(k.Notes, fmt.Sprintf("%s in %s is kept by %s: %s", c.Key, c.Scope, c.Persist.File, c.Persist.Line))
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
	if len(settings) == 0 {
		return nil, nil
	}
	file, err := PlanDropIn(root, e.ID, settings)
	if err != nil {
		return nil, err
	}
	k.File, k.Notes = file.Path, append(k.Notes, file.Warnings...)
	return &file, nil
}

// keep writes the file of a confirmed change. Where it cannot, the change stays
// confirmed until the next boot, and the journal says why.
func (e *Entry) keep(j *Journal) error {
	step("before file")
	err := e.file.Write()
	step("after file")
	if err == nil {
		e.filed = true
		return record(j, Filed, e.ID, nil)
	}
	why := e.file.Path + " could not be written: " + err.Error()
	e.file = nil
	return errors.Join(fmt.Errorf("change %s is confirmed until the next boot, and not kept beyond it: %w", e.ID, err),
		record(j, Forgotten, e.ID, reasonDetail{Reason: why}))
}

// forget takes the file of a change away, where it still says what linger wrote, or
// else if forced. One that others changed stays, and that is told and is no error.
func (e *Entry) forget(j *Journal) error {
	if e.file == nil {
		return nil
	}
	step("before file")
	removed, err := e.file.Remove(e.force)
	step("after file")
	fate := e.file.Path + " is taken away"
	switch {
	case errors.Is(err, ErrNotOurs):
		fate = err.Error()
	case err != nil:
		return err
	case !removed && !e.filed:
		fate = e.file.Path + " was not written yet"
	case !removed:
		fate = e.file.Path + " was gone already"
	}
	e.file, e.filed, e.fate = nil, false, fate
	return record(j, Forgotten, e.ID, reasonDetail{Reason: fate})
}
