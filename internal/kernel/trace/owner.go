package trace

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Socket names one socket of a host: cookies are of a namespace before kernel 5.14.
type Socket struct {
	Netns  Netns
	Cookie uint64
}

// Owner is the process that closed a socket first, while it did.
type Owner struct {
	Process string
	PID     uint32
	Cgroup  uint64
}

// Owners are the makers of the TIME_WAIT sockets that were made since Load, the last
// Options.MaxOwners of them. A socket keeps its cookie, as sock_diag tells it, when it
// enters TIME_WAIT.
func (t *Tracer) Owners() (map[Socket]Owner, error) {
	const atOnce = 4096
	owners := map[Socket]Owner{}
	keys, values := make([]bpfOwnerKey, atOnce), make([]bpfOwner, atOnce)
	take := func(k *bpfOwnerKey, v *bpfOwner) {
		owners[Socket{Netns(k.Netns), k.Cookie}] = Owner{name(v.Comm), v.Pid, v.Cgroup}
	}
	m := t.objects.Maps[bpfMapOwners]
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			take(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return owners, nil
		}
		if err != nil {
			return owners, fmt.Errorf("read the makers of TIME_WAIT sockets: %w", err)
		}
	}
}
