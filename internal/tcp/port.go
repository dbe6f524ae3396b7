package tcp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is a range of ports, both ends included.
type PortRange struct {
	Low  uint16 `json:"low"`
	High uint16 `json:"high"`
}

// ParsePortRange reads the form of net.ipv4.ip_local_port_range: two numbers
// with white space between them.
func ParsePortRange(text string) (PortRange, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return PortRange{}, fmt.Errorf("port range %q: want two numbers", text)
	}
	low, errLow := strconv.ParseUint(fields[0], 10, 16)
	high, errHigh := strconv.ParseUint(fields[1], 10, 16)
	if errLow != nil || errHigh != nil || low > high {
		return PortRange{}, fmt.Errorf("port range %q: want two ports, the lower first", text)
	}
	return PortRange{Low: uint16(low), High: uint16(high)}, nil
}

// Size is the number of ports in the range.
func (r PortRange) Size() int { return int(r.High) - int(r.Low) + 1 }

// Contains tells whether the port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.Low <= port && port <= r.High }

// String writes the range as low-high.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.Low, r.High) }

// PortSet is a set of ports: ranges in rising order that neither touch nor
// overlap.
type PortSet []PortRange

// ParsePortSet reads the form of net.ipv4.ip_local_reserved_ports: ports and
// ranges with commas between them, such as 8080,9148-9150. No text is no port.
func ParsePortSet(text string) (PortSet, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	var ranges []PortRange
	for _, item := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(item, "-")
		if !isRange {
			high = low
		}
		r, err := ParsePortRange(low + " " + high)
		if err != nil {
			return nil, fmt.Errorf("port set %q: %q is no port and no range of ports", text, item)
		}
		ranges = append(ranges, r)
	}
	return newPortSet(ranges), nil
}

// PortSetOf makes a set of single ports.
func PortSetOf(ports ...uint16) PortSet {
	ranges := make([]PortRange, len(ports))
	for i, p := range ports {
		ranges[i] = PortRange{Low: p, High: p}
	}
	return newPortSet(ranges)
}

// Union is the set of the ports that are in either set.
func (s PortSet) Union(other PortSet) PortSet {
	return newPortSet(slices.Concat(s, other))
}

func newPortSet(ranges []PortRange) PortSet {
	slices.SortFunc(ranges, func(a, b PortRange) int { return int(a.Low) - int(b.Low) })
	var set PortSet
	for _, r := range ranges {
		if n := len(set); n > 0 && int(r.Low) <= int(set[n-1].High)+1 {
			set[n-1].High = max(set[n-1].High, r.High)
			continue
		}
		set = append(set, r)
	}
	return set
}

// Within is the number of the set's ports that lie in the range.
func (s PortSet) Within(r PortRange) int {
	n := 0
	for _, own := range s {
		low, high := max(own.Low, r.Low), min(own.High, r.High)
		if low <= high {
			n += int(high) - int(low) + 1
		}
	}
	return n
}

// Contains tells whether the port is in the set.
func (s PortSet) Contains(port uint16) bool {
	return s.Within(PortRange{Low: port, High: port}) == 1
}

// String writes the set in the form that ParsePortSet reads.
func (s PortSet) String() string {
	items := make([]string, len(s))
	for i, r := range s {
		items[i] = strconv.Itoa(int(r.Low))
		if r.High != r.Low {
			items[i] = r.String()
		}
	}
	return strings.Join(items, ",")
}
