package procnet

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// ReadSoftnet is ParseSoftnet of the host whose proc file system is mounted there: the file is
// the same in each namespace.
func ReadSoftnet(proc string) (map[string]uint64, error) {
	text, err := os.ReadFile(proc + threadNet + "softnet_stat")
	if err != nil {
		return nil, err
	}
	return ParseSoftnet(text)
}

// ParseSoftnet sums /proc/net/softnet_stat over its CPUs, one to a line and in
// hexadecimal (softnet_seq_show of net/core/net-procfs.c): the packets processed, the
// packets dropped because the backlog queue was full, and time_squeeze, how often
// the softirq stopped with work left. Each CPU counts in 32 bits and wraps around.
func ParseSoftnet(text []byte) (map[string]uint64, error) {
	names := [...]string{"processed", "dropped", "time_squeeze"}
	sums := map[string]uint64{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		for _, name := range names {
			var value []byte
			value, line = word(line)
			n, err := strconv.ParseUint(string(value), 16, 32)
			if err != nil {
				return nil, fmt.Errorf("parse softnet_stat: %s: %w", name, err)
			}
			sums[name] += n
		}
	}
	if len(sums) == 0 {
		return nil, fmt.Errorf("parse softnet_stat: no CPU")
	}
	return sums, nil
}
