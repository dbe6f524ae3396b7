package conntrack

import "testing"

// Whatever a datagram holds, parsing it ends, and says nothing of entries beyond it.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{20, 0, 0, 0, 3, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{
		44, 0, 0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
		8, 0, 3, 0, 0, 0, 0, 16, // status
		16, 0, 4, 128, 12, 0, 1, 128, 5, 0, 1, 0, 7, 0, 0, 0, // TCP state
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		visited := 0
		_, _ = parse(b, func(flow Flow) {
			visited++
			if flow.State == "" {
				t.Error("an entry without a state")
			}
		})
		if visited > len(b)/16 {
			t.Errorf("%d entries in %d bytes", visited, len(b))
		}
	})
}
