package capacity

import "linger/internal/tcp"

// Ports is how many ports of the range connect() can choose from: those in none of
// the sets. A port in several sets is taken once.
func Ports(r tcp.PortRange, taken ...tcp.PortSet) int {
	var all tcp.PortSet
	for _, set := range taken {
		all = all.Union(set)
	}
	return r.Size() - all.Within(r)
}
