package remedy

import (
	"fmt"
	"strconv"
	"strings"

	"linger/internal/diagnose"
	"linger/internal/figure"
	"linger/internal/setting"
)

// What relieves the stack of a host that is short of CPU time or memory.

func readFaster(at *site) Remedy {
	return Remedy{
		Title: "Take the data in time",
		Kind:  Application,
		Now:   diagnose.In(at.f.Netns, "ss -tnmp"),
		Change: "Recv-Q shows whose data waits. Give that program CPU time (its cgroup's cpu.max and cpu.weight), more workers, " +
			"or repair what it waits for.",
		Frees:     "the buffers, and the segments that are dropped and sent again",
		Risk:      "none",
		NotWhen:   "the program holds its reading back on purpose",
		Mechanism: "A receive buffer empties when the program reads.",
		Kernels:   "all",
	}
}

func raiseTCPMem(at *site) Remedy {
	const key = setting.TCPMem
	known := setting.Of(key)
	fields := strings.Fields(at.host.Settings[key])
	for i, text := range fields {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			fields[i] = strconv.FormatInt(2*n, 10)
		}
	}
	if len(fields) != 3 {
		fields = []string{"190000", "253000", "380000"}
	}
	value := strings.Join(fields, " ")
	return Remedy{
		Title:     "Let TCP have more memory",
		Kind:      Setting,
		Now:       "sysctl -w " + assigned(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   &Persist{File: HandFile, Line: key + " = " + value},
		Frees:     fmt.Sprintf("twice the pages: %s", value),
		Risk:      known.Risk,
		NotWhen:   "memory is short on the host as a whole, or one program's unread data is the reason",
		Mechanism: known.Mechanism(),
		Kernels:   known.Kernels,
	}
}

func spreadSoftirq(*site) Remedy {
	return Remedy{
		Title: "Let more CPUs receive",
		Kind:  Application,
		Now:   "cat /proc/net/softnet_stat; grep -E 'eth|ens|virtio|mlx' /proc/interrupts",
		Change: "Where one CPU takes all packets, spread the device's queues over CPUs (ethtool -L, irqbalance), or use receive " +
			"packet steering (/sys/class/net/DEV/queues/rx-*/rps_cpus).",
		Frees:     "the packets that are dropped for want of CPU time",
		Risk:      "more CPUs are interrupted",
		NotWhen:   "all CPUs are busy with softirqs already",
		Mechanism: "Each CPU has a queue of its own (Documentation/networking/scaling.rst).",
		Kernels:   "all",
	}
}

func raiseNetdevBacklog(at *site) Remedy {
	const key = setting.NetdevMaxBacklog
	known := setting.Of(key)
	now, _ := at.host.Settings.Int(key)
	to := max(2*now, 4096)
	value := strconv.FormatInt(to, 10)
	return Remedy{
		Title:     "Lengthen the CPUs' queues to " + figure.Count(to),
		Kind:      Setting,
		Now:       "sysctl -w " + assigned(key, value),
		Sets:      []Assignment{{key, value}},
		Persist:   &Persist{File: HandFile, Line: key + " = " + value},
		Frees:     fmt.Sprintf("room for bursts of %s packets for each CPU", figure.Count(to)),
		Risk:      known.Risk,
		NotWhen:   "the drops go on all the time: then CPU time is missing, and no queue helps",
		Mechanism: known.Mechanism(),
		Kernels:   known.Kernels,
	}
}
