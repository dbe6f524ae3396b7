package change

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The kinds of record about a file that keeps a change over a boot.
const (
	// Keeping: the file is about to be written. Forgotten: it was taken away.
	Keeping   Kind = "keeping"
	Forgotten Kind = "forgotten"
)

// Keep writes a file that PlanDropIn has planned. The journal knows of it before it
// is there, so that a crash between leaves nothing that Forget does not find.
func Keep(dir string, d *DropIn) error {
	j, err := OpenJournal(dir)
	if err != nil {
		return err
	}
	defer j.Close()
	if err := j.Append(Keeping, d.ID, d); err != nil {
		return err
	}
	return d.Write()
}

// FileOf is the file that keeps a change, nil where there is none.
func FileOf(records []Record, id string) (*DropIn, error) {
	var kept *DropIn
	for _, r := range records {
		switch {
		case r.ID != id:
		case r.Kind == Keeping:
			kept = &DropIn{}
			if err := json.Unmarshal(r.Detail, kept); err != nil {
				return nil, fmt.Errorf("%w: record %d says nothing of its file: %w", ErrCorrupt, r.Seq, err)
			}
		case r.Kind == Forgotten:
			kept = nil
		}
	}
	return kept, nil
}

// Forget takes the file of a change away, where it still says what linger wrote. It
// returns its path, "" where there was none. One that others changed is ErrNotOurs and
// stays.
func Forget(dir, root, id string) (string, error) {
	records, err := ReadJournal(dir)
	if err != nil {
		return "", err
	}
	d, err := FileOf(records, id)
	if err != nil || d == nil {
		return "", err
	}
	removed, err := d.At(root).Remove()
	if err != nil {
		return d.Path, err
	}
	j, err := OpenJournal(dir)
	if err != nil {
		return d.Path, err
	}
	err = errors.Join(j.Append(Forgotten, id, nil), j.Close())
	if !removed {
		return "", err
	}
	return d.Path, err
}
