package tcp

import (
	"encoding/json"
	"fmt"
)

// MarshalJSON writes the states that occur, by name and in the kernel's order.
func (c States) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for s, n := range c {
		if n == 0 {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, "%q:%d", State(s).String(), n)
	}
	return append(out, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown states.
func (c *States) UnmarshalJSON(data []byte) error {
	var named map[string]int
	if err := json.Unmarshal(data, &named); err != nil {
		return err
	}
	*c = States{}
	for name, n := range named {
		s, err := parseState(name)
		if err != nil {
			return err
		}
		c[s] = n
	}
	return nil
}
