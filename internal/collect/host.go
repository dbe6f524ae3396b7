package collect

import (
	"slices"
	"time"

	"linger/internal/kernel/host"
	"linger/internal/kernel/procnet"
	"linger/internal/kernel/sysctl"
	"linger/internal/snapshot"
)

// readHost reads what all namespaces share.
func (r *reading) readHost() {
	h, err := host.Read(r.roots.Proc)
	if err != nil {
		r.gap("", "some of the host's name, memory, load and pressure", "a mounted /proc", err)
	}
	out := &r.snapshot.Host
	out.Name, out.Kernel, out.BootID, out.CPUs = h.Name, h.Kernel, h.BootID, h.CPUs
	if h.Memory != nil {
		out.Memory = &snapshot.Memory{Total: h.Memory.Total, Available: h.Memory.Available}
	}
	if h.Load != nil {
		out.Load = &snapshot.Load{One: h.Load.One, Five: h.Load.Five, Fifteen: h.Load.Fifteen}
	}
	for resource, p := range h.Pressure {
		if out.Pressure == nil {
			out.Pressure = map[string]snapshot.Pressure{}
		}
		out.Pressure[resource] = snapshot.Pressure{Some: p.Some, Full: p.Full}
	}
	// A key of the whole host is absent in every namespace but the first, so that
	// this reads less where linger itself runs in another one.
	settings, err := sysctl.Proc(r.roots.Proc).ReadAll(sysctl.HostWide)
	if err != nil {
		r.gap("", "some sysctls of the whole host", "a mounted and readable /proc/sys", err)
	}
	out.Settings = settings

	r.boot.read(r.roots.Disk, r.snapshot.TakenAt)
	out.Boot = slices.Clone(r.boot.settings)
	for _, err := range r.boot.problems {
		r.gap("", "what the files of sysctl.d would set", "read access to them", err)
	}

	if len(r.namespaces) > 0 {
		// These two are counted over all namespaces, so that any of them tells.
		out.Orphans = r.namespaces[0].sockstat.Orphans
		out.TCPMemoryPages = r.namespaces[0].sockstat.MemoryPages
	}

	softnet, err := procnet.ReadSoftnet(r.roots.Proc)
	if err != nil {
		r.gap("", "softnet_stat", "a mounted /proc", err)
	}
	out.Softnet = snapshot.NewCounters(softnet, nil)
}

// bootFreshFor is how long it is believed what the files of sysctl.d say: there may be hundreds.
const bootFreshFor = time.Minute

// bootFiles are what the files on disk would set at the next boot, as read last.
type bootFiles struct {
	readAt   time.Time
	settings []snapshot.BootSetting
	problems []error
}

func (b *bootFiles) read(root string, now time.Time) {
	if !b.readAt.IsZero() && now.Sub(b.readAt) < bootFreshFor {
		return
	}
	values, problems := sysctl.Boot(root, slices.Concat(sysctl.PerNamespace, sysctl.HostWide))
	*b = bootFiles{readAt: now, problems: problems}
	for _, v := range values {
		b.settings = append(b.settings, snapshot.BootSetting{Key: v.Key, Value: v.Value, File: v.File, Line: v.Line, Loaders: v.Loaders})
	}
}
