package trace

import (
	"fmt"
	"hash/maphash"
	"time"
	"unsafe"
)

// How groups are given back. While more than crowded of their numbers are in use, a group without
// an open connection in which nothing has happened for quietTime loses its key, here and where
// hints compare it, so that no connection comes to it any more. Whoever had just looked up its
// number counts within microseconds: when it is seen unchanged for settleTime more, nobody has
// the number, and the next group gets it.
const (
	crowded    = 0.75
	quietTime  = 10 * time.Second
	settleTime = time.Second
)

// holding is what is remembered of a group from one reading to the next.
type holding struct {
	serial  uint64
	sum     uint64    // of all its bytes
	changed time.Time // when it was first seen as it is
	leaving bool      // has lost its key, which was:
	key     bpfGroupKey
}

// keeper decides which groups are given back. The times are for tests to shorten.
type keeper struct {
	held          []holding
	serials       uint64
	seed          maphash.Seed
	used          int // groups in the last reading, those that are leaving left out
	quiet, settle time.Duration
}

func newKeeper(groups int) keeper {
	return keeper{held: make([]holding, groups), seed: maphash.MakeSeed(), quiet: quietTime, settle: settleTime}
}

// look takes note of a group as it is now, and gives it the key that it has lost.
func (k *keeper) look(number int, in *bpfGroup, now time.Time) *holding {
	h := &k.held[number]
	if h.serial == 0 {
		k.serials++
		*h = holding{serial: k.serials, changed: now}
	}
	if h.leaving {
		in.Key = h.key
	}
	if sum := maphash.Bytes(k.seed, bytesOf(in)); sum != h.sum {
		h.sum, h.changed = sum, now
	}
	return h
}

// giveBack takes the steps that are due for a group that was just read, and tells whether it is
// gone with that.
func (t *Tracer) giveBack(number int, h *holding, in *bpfGroup, now time.Time) (gone bool, err error) {
	since := now.Sub(h.changed)
	switch {
	case number == 0 || in.Live > 0:
	case h.leaving && since >= t.keeper.settle:
		t.keeper.held[number] = holding{}
		err = t.erase(number, 0, groupSize)
		if err == nil {
			err = t.objects.Maps[bpfMapFreeGroups].Put(nil, uint32(number))
		}
		gone = true
	case !h.leaving && since >= t.keeper.quiet && float64(t.keeper.used) > crowded*float64(t.most):
		err = t.objects.Maps[bpfMapGroupNumbers].Delete(&in.Key)
		if err == nil {
			err = t.erase(number, unsafe.Offsetof(in.Key), unsafe.Sizeof(in.Key))
		}
		h.leaving, h.key, h.changed = true, in.Key, now
		t.keeper.used--
	}
	if err != nil {
		return gone, fmt.Errorf("give back a group: %w", err)
	}
	return gone, nil
}

// erase writes zeros over a part of a group.
func (t *Tracer) erase(number int, offset, size uintptr) error {
	_, err := t.memory.WriteAt(make([]byte, size), int64(number)*groupStride+int64(offset))
	return err
}
